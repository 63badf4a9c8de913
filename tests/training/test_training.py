"""Training on the tiny model: the loss, the guards, resume, and what is left on disk."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import bitsandbytes as bnb
import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel

from helpers import evaluation, models, prompts, splits, training
from helpers.files import CourseError, LabelMaskError, write_text
from helpers.settings import ROOT


def chats(corpus):
    return [prompts.messages(recipe, "id") for recipe in corpus]


@pytest.fixture(scope="module")
def rows(corpus, tokenizer, cfg):
    return training.ChatDataset(chats(corpus), tokenizer, cfg.max_length)


@pytest.fixture(scope="module")
def batch(rows, tokenizer):
    return training.collate([rows[i] for i in range(4)], tokenizer.pad_token_id)


def prepared(cfg, rows, tokenizer, folder, **changes):
    """A trainer that has not begun; `changes` of the settings."""
    cfg = dataclasses.replace(cfg, **changes)
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    args = training.arguments(cfg, len(rows), folder)
    return training.make_trainer(model, cfg, rows, rows, tokenizer, args)


def trained(cfg, rows, tokenizer, folder, **changes):
    """(trainer, summary) of a training that goes on where the folder has a checkpoint of it."""
    trainer = prepared(cfg, rows, tokenizer, folder, **changes)
    return trainer, training.run(trainer, "mark")


def losses(trainer):
    return {
        row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row
    }


# Rows, batches, loss.


def test_rows_over_the_limit_are_left_out_whole_and_counted(corpus, tokenizer):
    full = training.ChatDataset(chats(corpus), tokenizer, 10_000)
    limit = sorted(len(r) for r in full.rows)[len(full) // 2]
    cut = training.ChatDataset(chats(corpus), tokenizer, limit)
    assert len(cut) + len(cut.too_long) == len(corpus) and 0 < len(cut) < len(corpus)
    assert max(len(r) for r in cut.rows) == limit
    assert all(r.labels[-1] == tokenizer.eos_token_id for r in cut.rows)


def test_a_row_that_would_teach_the_wrong_thing_is_refused_by_the_dataset(
    corpus, tokenizer, monkeypatch
):
    monkeypatch.setattr(prompts, "label_mask", lambda prompt, reply: prompt + reply)
    with pytest.raises(LabelMaskError, match="has a label"):
        training.ChatDataset(chats(corpus[:2]), tokenizer, 10_000)


def test_collating_masks_padding_and_keeps_every_end_token(batch, tokenizer):
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"]):
        length = int(mask.sum())
        assert ids[length - 1] == labels[length - 1] == tokenizer.eos_token_id
        assert (labels[length:] == prompts.IGNORE).all()
        assert (ids[length:] == tokenizer.pad_token_id).all()


def test_the_loss_equals_the_model_s_own_over_the_same_labels(cfg, batch):
    model = models.load_base(cfg, "none")
    with torch.no_grad():
        own = model(**batch).loss.item()
        ours = training.label_loss(model, batch, torch.float32).item()
        by_row = training.label_loss(model, batch, torch.float32, "none")
    labels = (batch["labels"] != prompts.IGNORE).sum().item()
    assert [ours, by_row.sum().item() / labels] == pytest.approx([own] * 2, rel=1e-5)


def test_logits_are_computed_for_label_positions_alone(cfg, batch):
    model, counts = models.load_base(cfg, "none").requires_grad_(False), []
    model.get_output_embeddings().register_forward_hook(
        lambda head, given, logits: counts.append(len(logits))
    )
    training.label_loss(model, batch, torch.float32)
    labels = int((batch["labels"][:, 1:] != prompts.IGNORE).sum())
    assert counts == [labels] and labels < batch["labels"].numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arithmetic_is_in_16_bits_where_asked_and_no_cache_is_kept(cfg, batch, dtype):
    model, seen = models.load_base(cfg, "none").float(), []
    model.get_decoder().register_forward_hook(
        lambda decoder, given, named, out: seen.append((named["use_cache"], out.past_key_values)),
        with_kwargs=True,
    )
    projection = model.get_decoder().layers[0].self_attn.q_proj
    projection.register_forward_hook(lambda layer, given, out: seen.append(out.dtype))
    training.label_loss(model, batch, dtype)
    assert seen == [dtype, (False, None)]


def test_an_output_layer_that_learns_gets_its_gradient(cfg, batch):
    model = models.load_base(cfg, "none")
    head = model.get_output_embeddings().weight
    gradients = []
    for loss in (model(**batch).loss, training.label_loss(model, batch, torch.float32)):
        gradients.append(torch.autograd.grad(loss, head)[0])
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-6)


def test_accumulated_batches_weigh_by_their_tokens(cfg, rows, tokenizer, tmp_path):
    """One step over four short and four long rows moves the adapter as one batch of the eight."""
    order = sorted(range(len(rows)), key=lambda i: len(rows.rows[i].labels))
    eight = training.ChatDataset([], tokenizer, 0)
    eight.rows = [rows.rows[i] for i in (*order[:4], *order[-4:])]
    moved = []
    for batch, accumulation in ((8, 1), (2, 4)):
        size = {"batch": batch, "accumulation": accumulation, "max_steps": 1, "warmup_steps": 0}
        folder = tmp_path / str(batch)
        trainer, _ = trained(cfg, eight, tokenizer, folder, optimizer="sgd", **size)
        moved.append(next(w for n, w in trainer.model.named_parameters() if "lora_B" in n))
    assert moved[0].abs().max() > 0 and torch.allclose(*moved, rtol=1e-3, atol=1e-9)


# Guards.


def test_training_lowers_the_loss_and_checks_gradients_after_each_evaluation(
    cfg, rows, tokenizer, tmp_path
):
    trainer, summary = trained(cfg, rows, tokenizer, tmp_path)
    evaluations = list(losses(trainer).values())
    assert evaluations[-1] < evaluations[0] and all(map(math.isfinite, evaluations))
    assert summary["gradient_checks_after_evaluation"] >= len(evaluations) - 1 >= 2
    assert summary["best_validation_loss"] == min(evaluations)
    assert summary["steps"] == cfg.max_steps and summary["tokens_per_s"] > 0


def test_a_model_that_stops_learning_after_an_evaluation_is_stopped_at_once(
    cfg, rows, tokenizer, tmp_path, monkeypatch
):
    """The packed kernel of AVX512-BF16, imitated: no gradient comes back after an evaluation."""
    trainer = prepared(cfg, rows, tokenizer, tmp_path)
    evaluate = trainer.evaluate

    def evaluate_and_pack(*args, **kwargs):
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.register_hook(torch.zeros_like)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(trainer, "evaluate", evaluate_and_pack)
    with pytest.raises(CourseError, match="get no gradient at step 4"):
        trainer.train()


@pytest.mark.skipif(
    not bnb.functional.has_avx512bf16(), reason="this processor's kernels repack nothing"
)
@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit")
def test_layers_that_an_evaluation_has_repacked_stop_a_training_that_would_go_on_wrongly(
    cfg, rows, tokenizer, tmp_path, monkeypatch
):
    """With an adapter at every layer a part of the gradient is left, and the loss still falls."""
    cfg = dataclasses.replace(cfg, compute_dtype="bfloat16")
    monkeypatch.setattr(models, "unpack", lambda model: model)
    trainer = prepared(cfg, rows, tokenizer, tmp_path)
    trainer.evaluate()
    with pytest.raises(CourseError, match="14 4-bit layers were repacked .* at step 1"):
        trainer.train()


def guarded(*gradients, log=(), step=0):
    """step(fp16): what a guard says of an update whose adapter has such gradients; the guard."""
    model, guard = torch.nn.Module(), training.GradientGuard()
    for number, gradient in enumerate(gradients):
        weight = torch.nn.Parameter(torch.zeros(2, 2))
        weight.grad = torch.full((2, 2), gradient)
        model.register_parameter(f"lora_B_{number}", weight)
    state = SimpleNamespace(global_step=step, log_history=log)
    loader = SimpleNamespace(dataset=[], collate_fn=lambda rows: {"labels": torch.tensor([])})
    guard.on_train_begin(None, state, None, train_dataloader=loader)

    def update(fp16=False):
        guard.on_pre_optimizer_step(SimpleNamespace(fp16=fp16), state, None, model=model)

    return update, guard


@pytest.mark.parametrize(
    ("gradients", "said"),
    [((0.0, 0.0), "get no gradient at step 1"), ((1.0, math.nan), "not finite at step 1:")],
)
def test_all_matrices_without_a_gradient_or_one_that_is_not_finite_end_a_training(gradients, said):
    guarded(0.0, 1.0)[0]()  # a layer that a batch does not reach
    update, _ = guarded(*gradients)
    with pytest.raises(CourseError, match=said):
        update()


def test_an_overflow_in_fp16_is_left_to_the_scaler_for_a_while():
    update, _ = guarded(math.inf)
    for _ in range(20):
        update(fp16=True)
    with pytest.raises(CourseError, match="not finite"):
        update(fp16=True)


def test_checks_before_a_resume_count_once():
    """The evaluation at the step that is resumed has not been followed by a step yet."""
    log = [{"step": 2, "eval_loss": 1.0}, {"step": 3, "loss": 1.0}, {"step": 4, "eval_loss": 1.0}]
    update, guard = guarded(1.0, log=log, step=4)
    update()
    assert guard.checked_after_evaluation == 1


@pytest.mark.parametrize(
    ("token", "label"),
    [("eos_token_id", prompts.IGNORE), ("pad_token_id", 0)],
    ids=["masks the end token", "lets padding be learnt"],
)
def test_a_collator_that_changes_what_is_learnt_is_refused_before_the_first_step(
    cfg, rows, tokenizer, tmp_path, token, label
):
    trainer = prepared(cfg, rows, tokenizer, tmp_path)
    sound = trainer.data_collator

    def changing(some):
        batch = sound(some)
        batch["labels"][batch["input_ids"] == getattr(tokenizer, token)] = label
        return batch

    trainer.data_collator = changing
    with pytest.raises(LabelMaskError, match="the collator leaves"):
        trainer.train()
    assert trainer.state.global_step == 0


# What a profile says.


# setting of a profile -> argument of transformers' Trainer, where the two differ
CALLED = {
    "accumulation": "gradient_accumulation_steps",
    "batch": "per_device_train_batch_size",
    "scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "epochs": "num_train_epochs",
}


def test_what_a_profile_says_is_what_the_trainer_gets(cfg, tmp_path):
    given = {"learning_rate": 3e-5, "max_grad_norm": 0.7, "warmup_steps": 1, "max_steps": 7}
    given |= {"accumulation": 3, "batch": 5, "scheduler": "constant_with_warmup", "epochs": 5.5}
    given |= {"optimizer": "adamw_torch_fused", "gradient_checkpointing": True, "seed": 7}
    args = training.arguments(dataclasses.replace(cfg, **given), 40, tmp_path)
    for setting, value in given.items():
        assert getattr(cfg, setting) != value == getattr(args, CALLED.get(setting, setting))
    assert args.data_seed == args.seed and args.use_cpu and args.report_to == []
    assert args.load_best_model_at_end and args.greater_is_better is False


@pytest.mark.parametrize(("evals", "every"), [(1, 10), (4, 2), (99, 1)])
def test_an_epoch_has_as_many_evaluations_as_the_profile_says(cfg, tmp_path, evals, every):
    cfg = dataclasses.replace(cfg, evals_per_epoch=evals, max_steps=-1, batch=4, accumulation=1)
    args = training.arguments(cfg, 40, tmp_path)  # ten steps an epoch
    assert args.eval_steps == args.save_steps == every


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradients_are_scaled_where_the_arithmetic_is_in_fp16_alone(cfg, tmp_path, dtype):
    cfg = dataclasses.replace(cfg, compute_dtype=dtype)
    assert training.arguments(cfg, 40, tmp_path).fp16 == (dtype == "float16")


def test_the_adapter_is_the_profile_s_or_the_lesson_s_own_and_always_in_fp32(cfg):
    cfg = dataclasses.replace(cfg, quantization="none", compute_dtype="bfloat16")
    cfg = dataclasses.replace(cfg, rank=3, alpha=5, dropout=0.25, targets=["v_proj"])
    config = training.attach_adapter(models.load_base(cfg), cfg).peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.25)
    assert config.target_modules == {"v_proj"}
    own = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = training.attach_adapter(models.load_base(cfg), cfg, own)
    learnt = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert learnt and all("q_proj" in name and 2 in p.shape for name, p in learnt.items())
    assert {p.dtype for p in learnt.values()} == {torch.float32}


def first_adapter(cfg):
    model = training.attach_adapter(models.load_base(cfg, "none"), cfg)
    return next(w for name, w in model.named_parameters() if "lora_A" in name)


def test_the_seed_decides_where_an_adapter_begins(cfg):
    once, again, other = (first_adapter(dataclasses.replace(cfg, seed=s)) for s in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other)


@pytest.mark.parametrize(
    ("most", "steps"),
    [(12, 12), (-1, 30)],  # 40 rows by fours are ten steps an epoch, of three
)
def test_a_warm_up_as_long_as_the_training_is_refused(cfg, tmp_path, most, steps):
    cfg = dataclasses.replace(cfg, batch=4, accumulation=1, epochs=3, max_steps=most)
    now = dataclasses.replace(cfg, warmup_steps=steps - 1)
    assert training.arguments(now, 40, tmp_path).warmup_steps == steps - 1
    with pytest.raises(CourseError, match="warm-up"):
        training.arguments(dataclasses.replace(cfg, warmup_steps=steps), 40, tmp_path)


# Resume.


LONG = {"max_steps": 8, "patience": 9, "evals_per_epoch": 4}


@pytest.fixture(scope="module")
def unbroken(cfg, rows, tokenizer, tmp_path_factory):
    """(folder with checkpoint-6 and -8, losses of the four evaluations)"""
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, losses(trained(cfg, rows, tokenizer, folder, **LONG)[0])


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(tmp_path, unbroken):
    output = shutil.copytree(unbroken[0], tmp_path / "out")
    file = output / "checkpoint-8" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert training.resume(output, "mark") == str(output / "checkpoint-6")


@pytest.mark.skipif(sys.platform == "win32", reason="forks, and sends POSIX signals")
@pytest.mark.parametrize(("moment", "last"), [("in a step", 4), ("while saving", 6)])
def test_a_training_that_was_killed_resumes_and_ends_like_an_unbroken_one(
    cfg, rows, tokenizer, tmp_path, monkeypatch, unbroken, moment, last
):
    """SIGKILL after checkpoint-4: in step 5, or when checkpoint-6 lacks its optimizer still."""
    child = os.fork()
    if child == 0:
        die = partial(os.kill, os.getpid(), signal.SIGKILL)
        step, save = training.LabelTrainer.training_step, torch.save

        def training_step(self, *args, **kwargs):
            if moment == "in a step" and self.state.global_step == 4:
                die()
            return step(self, *args, **kwargs)

        def saved(state, path, *args, **kwargs):
            if moment == "while saving" and str(path).endswith("checkpoint-6/optimizer.pt"):
                die()
            return save(state, path, *args, **kwargs)

        monkeypatch.setattr(training.LabelTrainer, "training_step", training_step)
        monkeypatch.setattr(torch, "save", saved)
        try:
            trained(cfg, rows, tokenizer, tmp_path, **LONG)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert max(p.name for p in tmp_path.glob("checkpoint-*")) == f"checkpoint-{last}"
    assert losses(trained(cfg, rows, tokenizer, tmp_path, **LONG)[0]) == unbroken[1]


def test_a_resume_goes_on_counting_for_early_stopping(cfg, rows, tokenizer, tmp_path, monkeypatch):
    """Learning rate 0: no evaluation is better than that of step 2; the third of those stops."""
    flat = {"max_steps": 12, "patience": 3, "evals_per_epoch": 6, "learning_rate": 0.0}
    step = training.LabelTrainer.training_step

    def cut(self, *args, **kwargs):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.LabelTrainer, "training_step", cut)
        trained(cfg, rows, tokenizer, tmp_path, **flat)
    assert trained(cfg, rows, tokenizer, tmp_path, **flat)[1]["steps"] == 8  # of twelve


@pytest.mark.parametrize(("mark", "fresh"), [("another", False), ("mark", True)])
def test_checkpoints_of_another_training_or_of_a_finished_one_are_not_gone_on_from(
    unbroken, tmp_path, mark, fresh
):
    output = shutil.copytree(unbroken[0], tmp_path / "out")
    (output / "mine.txt").touch()
    assert training.resume(output, "mark") == str(output / "checkpoint-8")
    assert training.resume(output, mark, fresh) is None
    assert sorted(path.name for path in output.iterdir()) == ["fingerprint.txt", "mine.txt"]


# What a training is known by, and what it leaves.


def test_a_fingerprint_follows_rows_and_settings_but_not_the_display_language(
    cfg, rows, corpus, tokenizer
):
    def mark(changes=(), train=rows, validation=rows, **config):
        changed = dataclasses.replace(cfg, **dict(changes))
        given = SimpleNamespace(to_dict=lambda: config)
        return training.fingerprint(changed, train, validation, given)

    fewer = training.ChatDataset(chats(corpus[:-1]), tokenizer, cfg.max_length)
    unmasked = training.ChatDataset(rows.chats, tokenizer, cfg.max_length)
    unmasked.rows = [prompts.Encoded(row.input_ids, row.input_ids) for row in rows.rows]
    gpu = dataclasses.replace(cfg.device, kind="cuda")
    others = [
        mark(train=fewer),
        mark(validation=fewer),  # it chooses the checkpoint
        mark(train=unmasked),
        mark({"rank": 8}),
        mark({"device": gpu}),
        mark({"base_model": "/a/llama"}),
        mark({"base_model": "/b/llama"}),
        mark(learning_rate=1),
    ]
    assert len({mark(), *others}) == 1 + len(others)
    assert mark({"language": "en"}) == mark()
    assert mark(output_dir="a") == mark(output_dir="b"), "where it lies is not what it learns"


def test_a_fingerprint_is_the_same_in_every_process(cfg, rows):
    """PEFT keeps target modules as a set, whose order is another one in each process."""
    orders = {0, 8}, {8, 0}
    assert list(orders[0]) != list(orders[1]), "equal sets, as two processes may hold them"
    marks = set()
    for order in orders:
        config = SimpleNamespace(to_dict=lambda order=order: {"target_modules": order})
        marks.add(training.fingerprint(cfg, rows, rows, config))
    assert len(marks) == 1


def test_the_loss_of_an_evaluation_is_nats_a_label_token_whatever_the_batch(
    cfg, rows, tokenizer, tmp_path
):
    uneven = training.ChatDataset([], tokenizer, 0)
    uneven.rows = rows.rows[:11]
    for some in (0, 3, 4, 9):  # rows of one label beside rows of a hundred and more
        ids, labels = uneven.rows[some].input_ids, uneven.rows[some].labels
        uneven.rows[some] = prompts.Encoded(ids, [prompts.IGNORE] * (len(ids) - 1) + labels[-1:])
    found = []
    for batch in (1, 2, 4, 7):
        trainer = prepared(cfg, uneven, tokenizer, tmp_path / str(batch), batch=batch)
        found.append(trainer.evaluate()["eval_loss"])
    nats, labels = evaluation.row_nats(trainer.model, uneven, tokenizer, cfg)
    assert found == pytest.approx([sum(nats) / sum(labels)] * 4, rel=1e-4)
    # another set than the trainer's own
    own = trainer.evaluate(eval_dataset=[uneven[0]])["eval_loss"]
    assert own == pytest.approx(nats[0] / labels[0], rel=1e-4)


def test_a_training_on_a_test_recipe_is_refused(cfg, rows, tmp_path):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path)
    training.fingerprint(cfg, rows, rows)
    line = json.dumps({"recipe_id": "soto", "title": "Soto", "messages": rows.chats[3]})
    write_text(splits.split_file(cfg, "test"), line + "\n")
    with pytest.raises(CourseError, match="1 rows of train .* in test.*Soto"):
        training.fingerprint(cfg, rows, rows)


def test_a_saved_adapter_is_whole_carries_a_card_and_answers_like_the_one_in_memory(
    cfg, rows, tokenizer, tmp_path, batch
):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path, licence="Gemma", language="en")
    folder = cfg.artifacts / "adapter"
    trainer, summary = trained(cfg, rows, tokenizer, tmp_path / "checkpoints")
    training.save(folder, trainer, tokenizer, cfg, summary, "What it is for.")
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["language"] == "id", "of its recipes, not of the lesson"
    assert data["base_model"] == "sanity" and data["library_name"] == "peft"
    assert data["license"] == "gemma"
    for part in (cfg.data_hash, "learning_rate", "What it is for.", "'torch'"):
        assert part in card.text
    assert str(tmp_path) not in str(card) and "More Information" not in card.text
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == "sanity"  # and not where it lies
    history = json.loads((folder / "history.json").read_text())
    evaluations = [row["eval_loss"] for row in history if "eval_loss" in row]
    assert evaluations == list(losses(trainer).values())
    assert training.finished(folder, "mark")["steps"] == 12
    assert training.finished(folder, "another") is None
    with torch.no_grad():
        in_memory = training.label_loss(trainer.model.eval(), batch, torch.float32).item()
        reloaded = training.label_loss(models.load_tuned(cfg), batch, torch.float32).item()
    assert reloaded == pytest.approx(in_memory, rel=1e-3)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert training.finished(folder, "mark") is None, "it is trained again"


def test_the_plain_script_trains_an_adapter_with_the_libraries_alone(cfg, corpus, tmp_path):
    file, out = tmp_path / "train.jsonl", tmp_path / "out"
    write_text(file, "".join(json.dumps({"messages": chat}) + "\n" for chat in chats(corpus[:8])))
    script = ROOT / "docs" / "plain_qlora.py"
    assert "helpers" not in script.read_text(encoding="utf-8")
    words = [sys.executable, script, models.base_folder(cfg), file, out, "--steps", "2"]
    env = os.environ | {"HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    tuned = PeftModel.from_pretrained(models.load_base(cfg), str(out))
    moved = [w.abs().max().item() for n, w in tuned.named_parameters() if "lora_B" in n]
    assert moved and all(moved)
