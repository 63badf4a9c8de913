"""Training on the tiny model: the loss, the guards, resume, and what is left on disk."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import bitsandbytes as bnb
import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel

from helpers import evaluation, files, models, prompts, splits, training
from helpers.files import CourseError, LabelMaskError, read_json, write_text
from helpers.prompts import IGNORE
from helpers.settings import ROOT


@pytest.fixture(scope="module")
def rows(corpus, tokenizer, cfg):
    chats = [prompts.messages(recipe, "id") for recipe in corpus]
    return training.ChatDataset(chats, tokenizer, cfg.max_length)


@pytest.fixture(scope="module")
def batch(rows, tokenizer):
    return training.collate([rows[0], rows[1]], tokenizer.pad_token_id)


def dataset(some):
    """A ChatDataset of rows that are encoded already."""
    made = training.ChatDataset([], None, 0)
    made.rows = list(some)
    return made


def trainer_of(cfg, rows, tokenizer, folder):
    """A trainer that has not begun."""
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    args = training.arguments(cfg, len(rows), folder)
    return training.make_trainer(model, cfg, rows, rows, tokenizer, args)


@pytest.fixture
def prepared(cfg, rows, tokenizer, tmp_path):
    """prepared(...): a trainer that has not begun, with changes of the settings."""

    def prepare(rows=rows, folder=tmp_path / "checkpoints", **changes):
        return trainer_of(replace(cfg, **changes), rows, tokenizer, folder)

    return prepare


def losses(trainer):
    """Step -> loss of the evaluation at that step."""
    log = trainer.state.log_history
    return {row["step"]: row["eval_loss"] for row in log if "eval_loss" in row}


# Rows and batches.


def test_rows_over_the_limit_are_left_out_whole_and_counted(rows, tokenizer):
    limit = sorted(map(len, rows.rows))[len(rows) // 2]
    cut = training.ChatDataset(rows.chats, tokenizer, limit)
    assert len(cut) + len(cut.too_long) == len(rows)
    assert cut.too_long
    assert max(map(len, cut.rows)) == limit


def test_collating_masks_padding_and_keeps_every_end_token(batch, tokenizer):
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"]):
        length = int(mask.sum())
        assert ids[length - 1] == labels[length - 1] == tokenizer.eos_token_id
        assert (labels[length:] == IGNORE).all()
        assert (ids[length:] == tokenizer.pad_token_id).all()


# The loss.


def test_the_loss_and_its_gradient_are_the_model_s_own_over_the_same_labels(cfg, batch):
    model = models.load_base(cfg, "none")
    head = model.get_output_embeddings().weight  # an output layer may learn, too
    own = model(**batch).loss
    ours = training.label_loss(model, batch, torch.float32)
    assert torch.isclose(ours, own, rtol=1e-5)
    expected = torch.autograd.grad(own, head)[0]
    assert torch.allclose(torch.autograd.grad(ours, head)[0], expected, rtol=1e-3, atol=1e-6)


def test_logits_are_computed_for_label_positions_alone(cfg, batch):
    """They are what fills a GPU: positions times the whole vocabulary."""
    model = models.load_base(cfg, "none")
    counts = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda head, given, logits: counts.append(len(logits)))
    training.label_loss(model, batch, torch.float32)
    labels = int((batch["labels"] != IGNORE).sum())
    assert counts == [labels]
    assert labels < batch["labels"].numel()


def test_arithmetic_is_in_16_bits_where_asked(cfg, batch):
    model = models.load_base(cfg, "none").float()
    seen = []
    projection = model.get_decoder().layers[0].self_attn.q_proj
    projection.register_forward_hook(lambda layer, given, out: seen.append(out.dtype))
    training.label_loss(model, batch, torch.bfloat16)
    assert seen == [torch.bfloat16]


def test_accumulated_batches_weigh_by_their_tokens(rows, prepared, tmp_path):
    """One step over four short and four long rows moves the adapter as one batch of the eight."""
    by_length = sorted(rows.rows, key=len)
    eight = dataset(by_length[:4] + by_length[-4:])
    moved = []
    for batch, accumulation in ((8, 1), (2, 4)):
        trainer = prepared(
            eight,
            tmp_path / str(batch),
            batch=batch,
            accumulation=accumulation,
            max_steps=1,
            warmup_steps=0,
            optimizer="sgd",
        )
        trainer.train()
        moved.append(next(w for n, w in trainer.model.named_parameters() if "lora_B" in n))
    assert moved[0].abs().max() > 0
    assert torch.allclose(*moved, rtol=1e-3, atol=1e-9)


def test_the_loss_of_an_evaluation_is_nats_a_label_token_whatever_the_batch(
    cfg, rows, tokenizer, prepared
):
    uneven = rows.rows[:11]
    for place in (0, 3, 4, 9):  # rows of one label beside rows of a hundred and more
        row = uneven[place]
        uneven[place] = prompts.Encoded(row.input_ids, [IGNORE] * (len(row) - 1) + row.labels[-1:])
    uneven = dataset(uneven)
    for batch in (1, 4, 7):
        trainer = prepared(uneven, batch=batch)
        nats, labels = evaluation.row_nats(trainer.model, uneven, tokenizer, cfg)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(nats) / sum(labels), rel=1e-4)


def test_a_training_done_before_is_taken_from_the_disk_with_its_log(cfg, prepared, monkeypatch):
    first = prepared()
    training.once(first, cfg)
    monkeypatch.delattr(training.Trainer, "train")
    again = prepared()
    training.once(again, cfg)
    torch.testing.assert_close(again.model.state_dict(), first.model.state_dict(), rtol=0, atol=0)
    assert again.state.log_history == first.state.log_history
    with pytest.raises(AttributeError):  # another beginning is another training
        training.once(prepared(seed=7), cfg)


# Guards.


def test_training_lowers_the_loss_and_checks_gradients_after_each_evaluation(prepared):
    trainer = prepared()
    summary = training.run(trainer, "mark")
    evaluations = list(losses(trainer).values())
    assert evaluations[-1] < evaluations[0]
    assert summary["best_validation_loss"] == min(evaluations)
    assert summary["gradient_checks_after_evaluation"] >= len(evaluations) - 1 >= 2


def test_a_model_that_stops_learning_after_an_evaluation_is_stopped_at_once(prepared, monkeypatch):
    """The packed kernel of AVX512-BF16, imitated: no gradient comes back after an evaluation."""
    trainer = prepared()
    evaluate = trainer.evaluate

    def evaluate_and_pack(*args, **kwargs):
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.register_hook(torch.zeros_like)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(trainer, "evaluate", evaluate_and_pack)
    with pytest.raises(CourseError, match="tidak mendapat gradien di langkah 4"):
        trainer.train()


@pytest.mark.skipif(
    not bnb.functional.has_avx512bf16(), reason="this processor's kernels repack nothing"
)
@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit")
def test_layers_that_an_evaluation_has_repacked_stop_a_training_that_would_go_on_wrongly(
    prepared, monkeypatch
):
    """With an adapter at every layer a part of the gradient is left, and the loss still falls."""
    monkeypatch.setattr(models, "unpack", lambda model: model)
    trainer = prepared(compute_dtype="bfloat16")
    trainer.evaluate()
    with pytest.raises(CourseError, match="14 lapisan 4-bit dikemas ulang .* di langkah 1"):
        trainer.train()


def look(*gradients, fp16=False, times=1):
    """A guard that looks at updates of an adapter whose matrices have such gradients."""
    model = torch.nn.Module()
    for number, gradient in enumerate(gradients):
        weight = torch.nn.Parameter(torch.zeros(2, 2))
        weight.grad = torch.full((2, 2), gradient)
        model.register_parameter(f"lora_B_{number}", weight)
    guard = training.GradientGuard()
    state = SimpleNamespace(global_step=0, log_history=[])
    loader = SimpleNamespace(dataset=[], collate_fn=lambda rows: {"labels": torch.tensor([])})
    guard.on_train_begin(None, state, None, train_dataloader=loader)
    for _ in range(times):
        guard.on_pre_optimizer_step(SimpleNamespace(fp16=fp16), state, None, model=model)


def test_all_matrices_without_a_gradient_end_a_training():
    look(0.0, 1.0)  # a layer that a batch does not reach
    with pytest.raises(CourseError, match="tidak mendapat gradien di langkah 1"):
        look(0.0, 0.0)


def test_one_gradient_that_is_not_finite_ends_a_training():
    with pytest.raises(CourseError, match="tak hingga atau NaN di langkah 1:"):
        look(1.0, math.nan)


def test_an_overflow_in_fp16_is_left_to_the_scaler_for_a_while():
    look(math.inf, fp16=True, times=20)
    with pytest.raises(CourseError, match="tak hingga"):
        look(math.inf, fp16=True, times=21)


@pytest.mark.parametrize(
    ("token", "label"),
    [("eos_token_id", IGNORE), ("pad_token_id", 0)],
    ids=["masks the end token", "lets padding be learnt"],
)
def test_a_collator_that_changes_what_is_learnt_is_refused_before_the_first_step(
    tokenizer, prepared, token, label
):
    trainer = prepared()
    sound = trainer.data_collator

    def changing(some):
        batch = sound(some)
        batch["labels"][batch["input_ids"] == getattr(tokenizer, token)] = label
        return batch

    trainer.data_collator = changing
    with pytest.raises(LabelMaskError, match="collator menyisakan"):
        trainer.train()
    assert trainer.state.global_step == 0


# What a profile says; all that lesson 03 says as well is compared in test_lesson_03.py.


@pytest.mark.parametrize(
    ("most", "steps"),
    [(12, 12), (-1, 30)],  # 40 rows by fours are ten steps an epoch, of three
)
def test_a_warm_up_as_long_as_the_training_is_refused(cfg, tmp_path, most, steps):
    cfg = replace(cfg, batch=4, accumulation=1, epochs=3, max_steps=most, warmup_steps=steps)
    with pytest.raises(CourseError, match="langkah pemanasan"):
        training.arguments(cfg, 40, tmp_path)


def test_the_adapter_is_the_profile_s(cfg):
    cfg = replace(cfg, rank=3, alpha=5, dropout=0.25, targets=["v_proj"])
    config = training.attach_adapter(models.load_base(cfg), cfg).peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.25)
    assert config.target_modules == {"v_proj"}


def test_the_adapter_may_be_the_lesson_s_own_and_is_always_in_fp32(cfg):
    cfg = replace(cfg, quantization="none", compute_dtype="bfloat16")
    own = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = training.attach_adapter(models.load_base(cfg), cfg, own)
    assert model.peft_config["default"].r == 2
    dtypes = {weight.dtype for weight in model.parameters() if weight.requires_grad}
    assert dtypes == {torch.float32}


# Resume.


LONG = {"max_steps": 8, "patience": 9, "evals_per_epoch": 4}


@pytest.fixture(scope="module")
def unbroken(cfg, rows, tokenizer, tmp_path_factory):
    """(folder with checkpoint-6 and -8, losses of the four evaluations)"""
    folder = tmp_path_factory.mktemp("unbroken")
    trainer = trainer_of(replace(cfg, **LONG), rows, tokenizer, folder)
    training.run(trainer, "mark")
    return folder, losses(trainer)


@pytest.fixture
def own(unbroken, tmp_path):
    """The place of its training in a copy of the folder, with a log of the reader's."""
    own = training.place(shutil.copytree(unbroken[0], tmp_path / "out"), "mark")
    (own / "runs").mkdir()
    return own


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(own):
    assert training.resume(own.parent, "mark") == str(own / "checkpoint-8")
    file = own / "checkpoint-8" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert training.resume(own.parent, "mark") == str(own / "checkpoint-6")


def test_a_fresh_training_does_not_go_on_from_its_own_checkpoints(own):
    assert training.resume(own.parent, "mark", fresh=True) is None
    assert set(own.iterdir()) == {own / "fingerprint.txt", own / "runs"}


def test_another_training_in_the_same_folder_leaves_the_checkpoints_for_a_day(own):
    """Two learners, one folder of artifacts: who begins takes nothing from who trains."""
    strange = own.parent / "checkpoint-3"  # of no training of this course
    strange.mkdir()
    assert training.resume(own.parent, "another") is None
    assert (own / "checkpoint-8" / "optimizer.pt").is_file()
    os.utime(own, (0, 0))  # long ago
    training.resume(own.parent, "another")
    assert list(own.iterdir()) == [own / "runs"]
    assert strange.exists()


def test_the_same_training_runs_in_one_process_at_a_time(own):
    with files.lock_of(own), pytest.raises(CourseError, match="Kernel > Shut Down"):
        training.resume(own.parent, "mark")


@pytest.mark.skipif(sys.platform == "win32", reason="forks, and sends POSIX signals")
def test_a_training_that_was_killed_resumes_and_ends_like_an_unbroken_one(
    prepared, monkeypatch, unbroken
):
    """SIGKILL while checkpoint-6 is written: it has no optimizer, and checkpoint-4 is whole."""
    save = torch.save

    def saved(state, path, *args, **kwargs):
        if str(path).endswith("checkpoint-6/optimizer.pt"):
            os.kill(os.getpid(), signal.SIGKILL)
        return save(state, path, *args, **kwargs)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(torch, "save", saved)
        try:
            training.run(prepared(**LONG), "mark")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    trainer = prepared(**LONG)
    training.run(trainer, "mark")
    assert losses(trainer) == unbroken[1]


def test_a_resume_goes_on_counting_for_early_stopping(prepared, monkeypatch):
    """Learning rate 0: no evaluation is better than that of step 2; the third of those stops."""
    flat = {"max_steps": 12, "patience": 3, "evals_per_epoch": 6, "learning_rate": 0.0}
    step = training.LabelTrainer.training_step

    def cut(self, *args, **kwargs):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.LabelTrainer, "training_step", cut)
        training.run(prepared(**flat), "mark")
    assert training.run(prepared(**flat), "mark")["steps"] == 8  # of twelve


# What a training is known by.


def test_a_fingerprint_follows_rows_and_settings(cfg, rows):
    fewer = dataset(rows.rows[:-1])
    unmasked = dataset([prompts.Encoded(row.input_ids, row.input_ids) for row in rows.rows])
    changed = [
        (cfg, rows, rows),
        (cfg, rows, fewer),  # it chooses the checkpoint
        (cfg, unmasked, rows),
        (replace(cfg, rank=8), rows, rows),
        (replace(cfg, device=replace(cfg.device, kind="cuda")), rows, rows),
        (replace(cfg, base_model="/a/llama"), rows, rows),
        (replace(cfg, base_model="/b/llama"), rows, rows),
        (cfg, rows, rows, SimpleNamespace(to_dict=lambda: {"lr": 1})),
    ]
    assert len({training.fingerprint(*some) for some in changed}) == len(changed)


def test_a_fingerprint_does_not_follow_what_changes_no_result(cfg, rows):
    """The language shown, the place, and the order of a set, which differs in each process."""
    orders = [{0, 8}, {8, 0}]
    assert list(orders[0]) != list(orders[1])  # equal sets, as two processes may hold them
    marks = set()
    for language, order in zip(("id", "en"), orders):
        values = {"output_dir": language, "target_modules": order}
        config = SimpleNamespace(to_dict=values.copy)
        marks.add(training.fingerprint(replace(cfg, language=language), rows, rows, config))
    assert len(marks) == 1


def test_a_training_on_a_test_recipe_is_refused(cfg, rows, tmp_path):
    cfg = replace(cfg, artifacts_root=tmp_path)
    line = json.dumps({"recipe_id": "soto", "title": "Soto", "messages": rows.chats[3]})
    write_text(splits.split_file(cfg, "test"), line + "\n")
    with pytest.raises(CourseError, match="1 baris train .* di test.*Soto"):
        training.fingerprint(cfg, rows, rows)


# What a training leaves.


@pytest.fixture(scope="module")
def saved(cfg, rows, tokenizer, tmp_path_factory):
    """(settings, trainer) of a training whose adapter was saved, in an English lesson."""
    root = tmp_path_factory.mktemp("saved")
    own = replace(cfg, artifacts_root=root, licence="Gemma", language="en")
    trainer = trainer_of(own, rows, tokenizer, root / "checkpoints")
    summary = training.run(trainer, "mark")
    training.save(own.artifacts / "adapter", trainer, tokenizer, own, summary, "What it is for.")
    return own, trainer


def test_a_saved_adapter_answers_like_the_one_in_memory(saved, batch):
    own, trainer = saved
    with torch.no_grad():
        in_memory = training.label_loss(trainer.model.eval(), batch, torch.float32)
        reloaded = training.label_loss(models.load_tuned(own), batch, torch.float32)
    assert torch.isclose(reloaded, in_memory, rtol=1e-3)


def test_its_checkpoints_are_gone_once_it_is_saved(saved):
    own, trainer = saved
    assert list((own.artifacts_root / "checkpoints").glob("*/*")) == []


def test_its_card_tells_of_base_data_and_licence_and_names_no_place(saved):
    own, _ = saved
    folder = own.artifacts / "adapter"
    card = ModelCard.load(folder / "README.md")
    assert card.data.language == "id", "of its recipes, not of the lesson"
    assert card.data.base_model == "sanity"
    assert card.data.license == "gemma"
    for part in (own.data_hash, "learning_rate", "What it is for.", "'torch'"):
        assert part in card.text
    assert str(own.artifacts_root) not in str(card)
    config = read_json(folder / "adapter_config.json")
    assert config["base_model_name_or_path"] == "sanity"


def test_it_is_finished_for_its_own_training_and_where_it_is_whole(saved, tmp_path):
    folder = shutil.copytree(saved[0].artifacts / "adapter", tmp_path / "adapter")
    assert training.finished(folder, "mark")["steps"] == 12
    assert training.finished(folder, "another") is None
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert training.finished(folder, "mark") is None


def test_the_plain_script_trains_an_adapter_with_the_libraries_alone(cfg, rows, tmp_path):
    file, out = tmp_path / "train.jsonl", tmp_path / "out"
    write_text(file, "".join(json.dumps({"messages": chat}) + "\n" for chat in rows.chats[:8]))
    script = ROOT / "docs" / "plain_qlora.py"
    assert "helpers" not in script.read_text(encoding="utf-8")
    words = [sys.executable, script, models.base_folder(cfg), file, out, "--steps", "2"]
    env = os.environ | {"HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    tuned = PeftModel.from_pretrained(models.load_base(cfg), str(out))
    moved = [w.abs().max().item() for n, w in tuned.named_parameters() if "lora_B" in n]
    assert min(moved) > 0
