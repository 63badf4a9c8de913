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

import pytest
import torch
from peft import PeftModel
from transformers import EarlyStoppingCallback

from helpers import models, planner, prompts, show, splits, training
from helpers.files import (
    CourseError,
    LabelMaskError,
    MissingStep,
    UsageError,
    write_json,
    write_text,
)
from helpers.settings import ROOT


def chats(corpus):
    return [prompts.messages(recipe, "id") for recipe in corpus]


@pytest.fixture(scope="module")
def rows(corpus, tokenizer, cfg):
    return training.ChatDataset(chats(corpus), tokenizer, cfg.max_length)


@pytest.fixture(scope="module")
def batch(rows, tokenizer):
    return training.collate([rows[i] for i in range(4)], tokenizer.pad_token_id)


def test_rows_over_the_limit_are_left_out_whole_and_counted(corpus, tokenizer):
    full = training.ChatDataset(chats(corpus), tokenizer, 10_000)
    limit = sorted(len(r) for r in full.rows)[len(full) // 2]
    cut = training.ChatDataset(chats(corpus), tokenizer, limit)
    assert len(cut) + len(cut.too_long) == len(corpus) and 0 < len(cut) < len(corpus)
    assert max(len(r) for r in cut.rows) == limit
    assert all(r.labels[-1] == tokenizer.eos_token_id for r in cut.rows)


def test_collating_masks_padding_and_keeps_every_end_token(batch, tokenizer):
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"]):
        length = int(mask.sum())
        assert ids[length - 1] == labels[length - 1] == tokenizer.eos_token_id
        assert (labels[length:] == prompts.IGNORE).all() and (
            ids[length:] == tokenizer.pad_token_id
        ).all()


def test_the_loss_equals_the_model_s_own_over_the_same_labels(cfg, batch):
    model = models.load_base(cfg, "none")
    with torch.no_grad():
        own = model(**batch).loss.item()
        ours = training.label_loss(model, batch, torch.float32).item()
        by_row = training.label_loss(model, batch, torch.float32, "none")
    assert ours == pytest.approx(own, rel=1e-5)
    assert by_row.sum().item() / (batch["labels"] != prompts.IGNORE).sum().item() == pytest.approx(
        own, rel=1e-5
    )


def test_logits_are_computed_for_label_positions_alone(cfg, batch):
    model, shapes = models.load_base(cfg, "none").requires_grad_(False), []
    model.get_output_embeddings().register_forward_hook(
        lambda head, given, logits: shapes.append(logits.shape)
    )
    training.label_loss(model, batch, torch.float32)
    labels = int((batch["labels"][:, 1:] != prompts.IGNORE).sum())
    assert sum(count for count, _ in shapes) == labels < batch["labels"].numel()
    pieces, last = divmod(labels, planner.PIECE)  # on a processor
    assert [count for count, _ in shapes] == [planner.PIECE] * pieces + [last] * (last > 0)
    assert {size for _, size in shapes} == {model.config.vocab_size}


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


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("learning", ["q_proj", "lm_head"])
def test_a_loss_in_pieces_has_the_gradient_of_the_whole(
    cfg, batch, monkeypatch, reduction, learning
):
    """Also with an output layer that learns: then all positions go through it at once."""
    model = models.load_base(cfg, "none").requires_grad_(False)
    model.get_output_embeddings().weight = torch.nn.Parameter(
        model.get_output_embeddings().weight.detach().clone(), requires_grad=False
    )  # untied, so that the embedding stays frozen
    model.get_input_embeddings().register_forward_hook(lambda *a: a[-1].requires_grad_())
    (weight,) = [p for n, p in model.named_parameters() if f"{learning}.weight" in n][:1]
    weight.requires_grad_()
    found = []
    monkeypatch.setattr(training, "PIECE", 7)
    in_pieces, whole = training.InPieces.apply, lambda hidden, targets, nats: nats(hidden, targets)
    for apply in (whole, in_pieces):
        monkeypatch.setattr(training.InPieces, "apply", apply)
        weight.grad = None
        nats = training.label_loss(model, batch, torch.float32, reduction)
        (nats * torch.arange(1.0, 1 + nats.numel()).reshape(nats.shape)).sum().backward()
        found += [nats.detach(), weight.grad]
    assert torch.allclose(found[0], found[2], rtol=1e-6) and found[1].abs().max() > 0
    assert torch.allclose(found[1], found[3], rtol=1e-4, atol=1e-6)


def trained(cfg, rows, tokenizer, folder, resume=None, **changes):
    cfg = dataclasses.replace(cfg, **changes)
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    trainer = training.make_trainer(model, cfg, rows, rows, tokenizer, folder)
    training.train(resume_from_checkpoint=resume)
    return training


@pytest.fixture(scope="module")
def saved_checkpoint(cfg, rows, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    trained(cfg, rows, tokenizer, folder, max_steps=3, evals_per_epoch=1)
    return folder / "checkpoint-3"


def test_training_lowers_the_loss_and_checks_gradients_after_each_evaluation(
    cfg, rows, tokenizer, tmp_path
):
    trainer = trained(cfg, rows, tokenizer, tmp_path)
    evaluations = [r["eval_loss"] for r in training.history if "eval_loss" in r]
    assert evaluations[-1] < evaluations[0]
    assert training.guard.checked_after_evaluation >= len(evaluations) - 1 >= 2
    assert all(math.isfinite(v) for v in evaluations)


def test_an_evaluation_is_of_the_validation_rows_in_nats_a_label_token_of_their_batch(
    cfg, rows, tokenizer, tmp_path
):
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    one = torch.utils.data.Subset(rows, [1])  # to train on
    run, losses = training.make_trainer(model, cfg, one, rows, tokenizer, tmp_path), []
    for start in range(0, len(rows), cfg.batch):
        some = [rows[i] for i in range(start, min(start + cfg.batch, len(rows)))]
        with torch.no_grad():
            few = training.collate(some, tokenizer.pad_token_id)
            losses += len(some) * [training.label_loss(model, few, run.dtype).item()]
            assert run.compute_loss(model, few).item() == pytest.approx(losses[-1], rel=1e-3)
    assert run.evaluate()["eval_loss"] == pytest.approx(sum(losses) / len(rows), rel=1e-4)


def test_a_model_that_stops_learning_after_an_evaluation_is_stopped_at_once(
    cfg, rows, tokenizer, tmp_path, monkeypatch
):
    """The packed kernel of AVX512-BF16, imitated: no gradient comes back after an evaluation."""
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    trainer = training.make_trainer(model, cfg, rows, rows, tokenizer, tmp_path)
    evaluate = training.evaluate

    def evaluate_and_pack(*args, **kwargs):
        result = evaluate(*args, **kwargs)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.register_hook(torch.zeros_like)
        return result

    monkeypatch.setattr(training, "evaluate", evaluate_and_pack)
    with pytest.raises(CourseError, match="no gradient .*right after an evaluation"):
        training.train()


def test_a_gradient_that_is_not_finite_ends_the_training(cfg, rows, tokenizer, tmp_path):
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    weight = next(w for name, w in model.named_parameters() if "lora_B" in name)
    weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(CourseError, match="a gradient is not finite at step 1:"):
        training.make_trainer(model, cfg, rows, rows, tokenizer, tmp_path).train()


def test_one_matrix_without_a_gradient_ends_no_training():
    """As in a layer that a batch does not reach; only all of them together mean that it stopped."""

    def step(*gradients):
        model, guard = torch.nn.Module(), training.GradientGuard()
        guard.first, guard.evaluated, guard.skipped, guard.checked_after_evaluation = True, 0, 0, 0
        for n, gradient in enumerate(gradients):
            weight = torch.nn.Parameter(torch.ones(2))
            weight.grad = torch.full((2,), gradient)
            model.register_parameter(f"lora_B_{n}", weight)
        guard.on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None, model=model)

    step(0.0, 1.0)
    with pytest.raises(CourseError, match="get no gradient at step 1"):
        step(0.0, 0.0)


@pytest.mark.parametrize(
    ("token", "label"),
    [("eos_token_id", prompts.IGNORE), ("pad_token_id", 0)],
    ids=["masks the end token", "lets padding be learnt"],
)
def test_a_collator_that_changes_what_is_learnt_is_refused_before_the_first_step(
    cfg, rows, tokenizer, tmp_path, token, label
):
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    trainer = training.make_trainer(model, cfg, rows, rows, tokenizer, tmp_path)
    sound = training.data_collator

    def changing(some):
        batch = sound(some)
        batch["labels"][batch["input_ids"] == getattr(tokenizer, token)] = label
        return batch

    training.data_collator = changing
    with pytest.raises(LabelMaskError, match="the collator leaves"):
        training.train()
    assert training.state.global_step == 0


# setting of a profile -> argument of transformers' Trainer; none of the values is a default
GIVEN = {
    "learning_rate": (3e-5, "learning_rate"),
    "accumulation": (3, "gradient_accumulation_steps"),
    "batch": (5, "per_device_train_batch_size"),
    "scheduler": ("constant_with_warmup", "lr_scheduler_type"),
    "max_grad_norm": (0.7, "max_grad_norm"),
    "warmup_steps": (1, "warmup_steps"),
    "optimizer": ("adamw_torch_fused", "optim"),
    "gradient_checkpointing": (True, "gradient_checkpointing"),
    "epochs": (5.5, "num_train_epochs"),
    "max_steps": (7, "max_steps"),
    "seed": (7, "seed"),
}


@pytest.mark.parametrize("setting", GIVEN)
def test_what_a_profile_says_is_what_the_trainer_gets(cfg, tmp_path, setting):
    value, argument = GIVEN[setting]
    assert getattr(cfg, setting) != value
    args = training.arguments(dataclasses.replace(cfg, **{setting: value}), 40, tmp_path)
    assert getattr(args, argument) == value
    assert args.data_seed == args.seed
    assert args.load_best_model_at_end and args.metric_for_best_model == "eval_loss"
    assert args.greater_is_better is False


@pytest.mark.parametrize(("evals", "every"), [(1, 10), (2, 5), (4, 2), (99, 1)])
def test_an_epoch_has_as_many_evaluations_as_the_profile_says(cfg, tmp_path, evals, every):
    cfg = dataclasses.replace(cfg, evals_per_epoch=evals, max_steps=-1, batch=4, accumulation=1)
    args = training.arguments(cfg, 40, tmp_path)  # ten steps an epoch
    assert args.eval_steps == args.save_steps == every


def test_no_number_of_steps_means_whole_epochs(cfg, tmp_path):
    cfg = dataclasses.replace(cfg, batch=4, accumulation=1, epochs=3, evals_per_epoch=2)
    without = [
        training.arguments(dataclasses.replace(cfg, max_steps=n), 40, tmp_path) for n in (-1, 0)
    ]
    assert [args.eval_steps for args in without] == [5, 5]  # ten steps an epoch
    one = dataclasses.replace(cfg, max_steps=1, warmup_steps=0)
    assert training.arguments(one, 40, tmp_path).eval_steps == 1
    assert [training.steps_per_epoch(n, cfg) for n in (1, 40, 41, 43)] == [1, 10, 11, 11]


def test_gradients_are_scaled_where_the_arithmetic_is_in_fp16_alone(cfg, tmp_path, monkeypatch):
    dtypes = ("float32", "bfloat16", "float16")
    made = [dataclasses.replace(cfg, compute_dtype=dtype) for dtype in dtypes]
    assert [training.arguments(c, 40, tmp_path).fp16 for c in made] == [False, False, True]
    cfg = dataclasses.replace(cfg, compute_dtype="auto")
    for dtype in (torch.float16, torch.bfloat16):  # what an older GPU computes fast, and a newer
        monkeypatch.setattr(models, "compute_dtype", lambda cfg, dtype=dtype: dtype)
        assert training.arguments(cfg, 40, tmp_path).fp16 == (dtype == torch.float16)


@pytest.mark.parametrize("sharded", [False, True])
def test_an_adapter_is_in_fp32_but_in_the_models_dtype_where_fsdp_cuts_it_up(
    cfg, monkeypatch, sharded
):
    cfg = dataclasses.replace(cfg, quantization="none", compute_dtype="bfloat16")
    base = models.load_base(cfg).to(torch.bfloat16)
    monkeypatch.setattr(models, "sharded", lambda: sharded)
    model = training.attach_adapter(base, cfg)
    dtypes = {p.dtype for p in model.parameters() if p.requires_grad}
    assert dtypes == {torch.bfloat16 if sharded else torch.float32}


def test_patience_and_adapter_are_the_profile_s(cfg, rows, tokenizer, tmp_path):
    cfg = dataclasses.replace(cfg, patience=7, rank=3, alpha=5, dropout=0.25, targets=["v_proj"])
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    trainer = training.make_trainer(model, cfg, rows, rows, tokenizer, tmp_path)
    (stopping,) = [
        c for c in training.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)
    ]
    assert stopping.early_stopping_patience == 7
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.25)
    assert config.target_modules == {"v_proj"}


def first_adapter(cfg):
    model = training.attach_adapter(models.load_base(cfg, "none"), cfg)
    return next(w for name, w in model.named_parameters() if "lora_A" in name)


def test_the_seed_decides_where_an_adapter_begins(cfg):
    once, again, other = (first_adapter(dataclasses.replace(cfg, seed=s)) for s in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other)


@pytest.mark.parametrize(
    ("most", "steps"),
    [(12, 12), (1, 1), (-1, 30)],  # 40 rows by fours are ten steps an epoch, of three
)
def test_a_warm_up_as_long_as_the_training_is_refused(cfg, tmp_path, most, steps):
    cfg = dataclasses.replace(cfg, batch=4, accumulation=1, epochs=3, max_steps=most)
    for warmup, fine in ((steps - 1, True), (steps, False)):
        now = dataclasses.replace(cfg, warmup_steps=warmup)
        if fine:
            assert training.arguments(now, 40, tmp_path).warmup_steps == warmup
        else:
            with pytest.raises(CourseError, match="warm-up"):
                training.arguments(now, 40, tmp_path)


def test_accumulated_batches_weigh_by_their_tokens(cfg, rows, tokenizer, tmp_path):
    """One step over four short and four long rows moves the adapter as one batch of the eight."""
    order = sorted(range(len(rows)), key=lambda i: len(rows.rows[i].labels))
    eight = torch.utils.data.Subset(rows, [*order[:4], *order[-4:]])
    moved = []
    for batch, accumulation in ((8, 1), (2, 4)):
        now = dataclasses.replace(
            cfg, batch=batch, accumulation=accumulation, max_steps=1, warmup_steps=0
        )
        model = training.attach_adapter(models.load_base(now, "none", for_training=True), now)
        trainer = training.make_trainer(
            model, now, eight, rows, tokenizer, tmp_path / str(batch), callbacks=[]
        )
        seen = {}

        def keep(args, state, control, model=None, seen=seen, **kwargs):
            weight = next(w for name, w in model.named_parameters() if "lora_B" in name)
            seen["gradient"] = weight.grad.clone()

        training.guard.on_pre_optimizer_step = keep
        training.train()
        moved.append(seen["gradient"])
    assert torch.allclose(*moved, rtol=1e-3, atol=1e-7)


def test_logits_are_scaled_and_capped_as_two_families_do(cfg):
    logits = torch.tensor([[2.0, -40.0]])
    plain = training.scale_logits(logits, SimpleNamespace())
    assert torch.equal(plain, logits)
    granite = training.scale_logits(logits, SimpleNamespace(logits_scaling=8.0))
    assert granite.tolist() == [[0.25, -5.0]]
    gemma = training.scale_logits(logits, SimpleNamespace(final_logit_softcapping=30.0))
    assert gemma[0].tolist() == pytest.approx([30 * math.tanh(x / 30) for x in (2.0, -40.0)])


def test_models_loaded_for_training_never_use_the_layout_without_a_backward_pass(cfg):
    four_bit = [
        m
        for m in models.load_base(cfg, for_training=True).modules()
        if type(m).__name__ == "Linear4bit"
    ]
    assert four_bit and not any(m.support_avx512bf16_for_cpu for m in four_bit)


LONG = {"max_steps": 8, "patience": 9, "evals_per_epoch": 4}


@pytest.fixture(scope="module")
def unbroken(cfg, rows, tokenizer, tmp_path_factory):
    """(folder with checkpoint-6 and -8, losses of the four evaluations)"""
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, losses(trained(cfg, rows, tokenizer, folder, **LONG))


def losses(trainer):
    return {r["step"]: r["eval_loss"] for r in training.history if "eval_loss" in r}


def test_resuming_after_a_truncated_checkpoint_falls_back_and_ends_like_an_unbroken_run(
    cfg, rows, tokenizer, tmp_path, capsys, unbroken
):
    broken = shutil.copytree(unbroken[0], tmp_path / "broken")
    newest = sorted(broken.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))[-1]
    assert newest.name == "checkpoint-8"
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    sound = training.sound_checkpoint(broken)
    assert sound.endswith("checkpoint-6")
    assert "checkpoint-8 is broken" in capsys.readouterr().out
    again = losses(trained(cfg, rows, tokenizer, broken, resume=sound, **LONG))
    assert list(again) == [2, 4, 6, 8] and again == unbroken[1]


@pytest.mark.skipif(sys.platform == "win32", reason="forks, and sends POSIX signals")
@pytest.mark.parametrize("moment", ["in a step", "while saving"])
def test_a_training_that_was_killed_resumes_and_ends_like_an_unbroken_one(
    cfg, rows, tokenizer, tmp_path, monkeypatch, unbroken, moment
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
    last = 6 if moment == "while saving" else 4
    assert max(p.name for p in tmp_path.glob("checkpoint-*")) == f"checkpoint-{last}"
    sound = training.sound_checkpoint(tmp_path)
    assert sound.endswith("checkpoint-4")
    assert losses(trained(cfg, rows, tokenizer, tmp_path, resume=sound, **LONG)) == unbroken[1]


def test_whether_a_training_fits_is_asked_first_unless_it_is_cut_up(
    cfg, rows, tokenizer, tmp_path, monkeypatch
):
    asked, cut_up = [], []
    monkeypatch.setattr(training, "check_fits", asked.append)
    monkeypatch.setattr(models, "sharded", lambda: bool(cut_up))
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    training.make_trainer(model, cfg, rows, rows, tokenizer, tmp_path)
    assert asked == [cfg]
    cut_up.append("by FSDP")  # the plan is for a model that is whole on each card
    training.make_trainer(model, cfg, rows, rows, tokenizer, tmp_path)
    assert asked == [cfg]


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
    last = training.sound_checkpoint(tmp_path)
    assert last.endswith("checkpoint-4")
    ended = trained(cfg, rows, tokenizer, tmp_path, resume=last, **flat)
    assert ended.state.global_step == 8  # of twelve


def test_the_newest_checkpoint_is_taken_and_one_whose_state_is_cut_off_set_aside(
    saved_checkpoint, tmp_path, capsys
):
    for step in (9, 10):  # as text 10 comes before 9
        shutil.copytree(saved_checkpoint, tmp_path / f"checkpoint-{step}")
    assert training.sound_checkpoint(tmp_path).endswith("checkpoint-10")
    state = tmp_path / "checkpoint-10" / "trainer_state.json"
    state.write_text(state.read_text(encoding="utf-8")[:100], encoding="utf-8")
    assert training.sound_checkpoint(tmp_path).endswith("checkpoint-9")
    assert "checkpoint-10 is broken" in capsys.readouterr().out


class Malicious:
    """A pickle that leaves a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("part", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"])
def test_a_checkpoint_from_a_stranger_runs_no_code_and_is_set_aside(
    saved_checkpoint, tmp_path, capsys, part
):
    folder = shutil.copytree(saved_checkpoint, tmp_path / "out" / "checkpoint-2")
    shutil.copytree(saved_checkpoint, tmp_path / "out" / "checkpoint-3")
    for other in ("checkpoint-abc", "checkpoint-7.bak"):
        (tmp_path / "out" / other).mkdir()
    torch.save(Malicious(tmp_path / "ran"), tmp_path / "out" / "checkpoint-3" / part)
    assert training.sound_checkpoint(tmp_path / "out") == str(folder)
    assert "checkpoint-3 is broken" in capsys.readouterr().out
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "out" / "checkpoint-abc").is_dir()
    torch.load(
        next((tmp_path / "out").glob("broken-checkpoint-3-*")) / part, weights_only=False
    )  # what would have happened
    assert (tmp_path / "ran").exists()


def test_a_checkpoint_of_several_processes_has_a_random_state_of_each(tmp_path):
    assert training.random_states(tmp_path) == ["rng_state.pth"]
    (tmp_path / "rng_state_0.pth").touch()
    with pytest.raises(FileNotFoundError):  # not all have written theirs
        training.random_states(tmp_path)
    write_json(tmp_path / training.PROCESSES, {"processes": 2})
    assert training.random_states(tmp_path) == ["rng_state_0.pth", "rng_state_1.pth"]


def test_fingerprint_follows_rows_and_settings_but_not_the_display_language(
    cfg, rows, corpus, tokenizer, monkeypatch
):
    mark = training.fingerprint(cfg, rows, rows)
    fewer = training.ChatDataset(chats(corpus[:-1]), tokenizer, cfg.max_length)
    assert training.fingerprint(cfg, fewer, rows) != mark
    assert training.fingerprint(cfg, rows, fewer) != mark, "validation chooses the checkpoint"
    assert training.fingerprint(dataclasses.replace(cfg, rank=8), rows, rows) != mark
    assert training.fingerprint(dataclasses.replace(cfg, language="en"), rows, rows) == mark
    gpu = dataclasses.replace(cfg, device=dataclasses.replace(cfg.device, kind="cuda"))
    assert training.fingerprint(gpu, rows, rows) != mark
    config = training.lora_config(cfg)
    assert training.fingerprint(cfg, rows, rows, config) != mark
    marks = {  # where a run is logged is not what it learns
        training.fingerprint(cfg, rows, rows, SimpleNamespace(to_dict=lambda some=some: some))
        for some in ({"seed": 1, "run_name": "a"}, {"seed": 1, "run_name": "b"}, {"seed": 2})
    }
    assert len(marks) == 2
    encode = prompts.encode
    other_labels = training.ChatDataset(
        rows.chats,
        tokenizer,
        cfg.max_length,
        lambda chat, tokenizer: prompts.Encoded(ids := encode(chat, tokenizer).input_ids, ids),
        check=lambda *row: None,
    )
    assert training.fingerprint(cfg, other_labels, rows) != mark
    monkeypatch.setattr(training, "versions", lambda: {"torch": "0.1"})
    assert training.fingerprint(cfg, rows, rows) != mark


def test_every_argument_that_changes_what_is_learnt_makes_another_training(cfg, rows, tmp_path):
    """A stale adapter would be taken for the one with the new rate."""
    given = training.arguments(cfg, len(rows), tmp_path).to_dict()

    def mark(**changed):
        some = SimpleNamespace(to_dict=lambda: given | changed)
        return training.fingerprint(cfg, rows, rows, some)

    learnt = "learning_rate weight_decay warmup_steps num_train_epochs max_steps max_grad_norm seed"
    learnt += " data_seed optim lr_scheduler_type adam_beta2 fp16 per_device_train_batch_size"
    learnt += " gradient_accumulation_steps eval_steps metric_for_best_model label_smoothing_factor"
    assert set(learnt.split()) <= set(given)
    marks = {mark(**{name: "another"}) for name in learnt.split()} | {mark()}
    assert len(marks) == len(learnt.split()) + 1


MARK = """
from types import SimpleNamespace
from peft import LoraConfig
from helpers.course import settings
from helpers.training import checkpoints
rows = SimpleNamespace(rows=[], chats=[])
config = LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"])
print(checkpoints.fingerprint(settings.load("sanity"), rows, rows, config))
"""


def test_a_fingerprint_is_the_same_in_every_process(tmp_path, monkeypatch, capsys):
    """PEFT keeps target modules as a set, whose order follows the process's own hash seed."""
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    exec(MARK, {})
    here = capsys.readouterr().out
    env = os.environ | {"PYTHONHASHSEED": "random"}
    command = [sys.executable, "-c", MARK]
    there = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True).stdout
    assert here.strip() and there == here


def test_a_profile_for_the_processor_alone_trains_there_even_beside_a_gpu(cfg, tmp_path):
    assert training.arguments(cfg, 8, tmp_path).use_cpu
    gpu = dataclasses.replace(cfg, device=dataclasses.replace(cfg.device, kind="cuda"))
    assert not training.arguments(gpu, 8, tmp_path).use_cpu


def test_a_model_of_the_same_name_in_another_place_is_another_training(cfg, rows):
    one, other = (dataclasses.replace(cfg, base_model=f"/{place}/llama") for place in "ab")
    assert one.key != other.key
    assert training.fingerprint(one, rows, rows) != training.fingerprint(other, rows, rows)


def test_rows_that_lesson_02_wrote_anew_are_trained_on_anew(cfg, monkeypatch, tmp_path):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path)
    monkeypatch.setattr(models, "torn", lambda folder: None)
    write_json(models.adapter_folder(cfg) / "training.json", {"fingerprint": "m", "rows": "a"})
    for saved, found in ((None, True), ("a", True), ("b", False)):
        monkeypatch.setattr(models, "rows_hash", lambda cfg, saved=saved: saved)
        assert bool(training.finished(cfg, "m")) == found


def guarded(*gradients):
    """(a guard as a training begins it, its state, a model with an adapter of such gradients)"""
    named = []
    for number, gradient in enumerate(gradients):
        weight = torch.nn.Parameter(torch.zeros(2, 2))
        weight.grad = torch.full((2, 2), gradient)
        named.append((f"{number}.lora_B.weight", weight))
    state, guard = SimpleNamespace(global_step=0, log_history=[]), training.GradientGuard()
    loader = SimpleNamespace(dataset=[], collate_fn=lambda rows: {"labels": torch.tensor([])})
    guard.on_train_begin(None, state, None, train_dataloader=loader)
    return guard, state, SimpleNamespace(named_parameters=lambda: named)


@pytest.mark.parametrize("gradients", [(1.0, float("nan")), (float("inf"), 1.0)])
def test_one_matrix_whose_gradient_is_not_finite_ends_the_training(gradients):
    guard, state, model = guarded(*gradients)
    with pytest.raises(CourseError, match="not finite at step 1:"):
        guard.on_pre_optimizer_step(SimpleNamespace(fp16=False), state, None, model=model)


def test_gradients_are_looked_at_first_and_once_after_each_evaluation():
    guard, state, model = guarded(1.0)
    (_, weight), args = *model.named_parameters(), SimpleNamespace()
    guard.on_pre_optimizer_step(args, state, None, model=model)
    weight.grad.zero_()
    guard.on_pre_optimizer_step(args, state, None, model=model)  # not looked at
    assert guard.checked_after_evaluation == 0
    for evaluations in (1, 2):
        weight.grad.fill_(1.0)
        guard.on_evaluate(args, state, None)
        for _ in range(3):
            guard.on_pre_optimizer_step(args, state, None, model=model)
        assert guard.checked_after_evaluation == evaluations
    weight.grad.zero_()
    guard.on_evaluate(args, state, None)
    with pytest.raises(CourseError, match="no gradient at step 1, right after an evaluation"):
        guard.on_pre_optimizer_step(args, state, None, model=model)


def test_the_line_of_a_training_shows_its_newest_losses(monkeypatch):
    said = []
    line = SimpleNamespace(show=lambda text, force: said.append(text) if force else None)
    monkeypatch.setattr(training, "Live", lambda every: line)
    show.set_language("id")
    show = training.live_line("bank")
    rows = [{"step": 1, "of": 1200, "loss": 9.0}, {"step": 2, "of": 1200, "eval_loss": 1.23456}]
    show(rows)
    show(rows + [{"step": 1100, "of": 1200, "loss": 0.5, "eval_loss": 0.25}])
    assert said == [
        "bank: 2/1.200, eval_loss 1,235",
        "bank: 1.100/1.200, loss 0,500, eval_loss 0,250",
    ]


def test_an_overflow_in_fp16_is_left_to_the_scaler_for_a_while(tmp_path):
    guard, state, model = guarded(float("inf"))
    for _ in range(20):
        guard.on_pre_optimizer_step(SimpleNamespace(fp16=True), state, None, model=model)
        assert guard.first, "it must look again at the next update"
    for fp16 in (True, False):
        guard.skipped = 20 * fp16
        with pytest.raises(CourseError, match="not finite"):
            guard.on_pre_optimizer_step(SimpleNamespace(fp16=fp16), state, None, model=model)


def test_a_training_on_a_test_recipe_is_refused(cfg, rows, tmp_path):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path)
    training.fingerprint(cfg, rows, rows)
    line = json.dumps({"title": "Soto", "messages": rows.chats[3]})
    write_text(splits.split_file(cfg, "test"), line + "\n")
    with pytest.raises(CourseError, match="1 training rows are test recipes.*Soto"):
        training.fingerprint(cfg, rows, rows)


def test_a_row_that_would_teach_the_wrong_thing_is_refused_by_the_dataset(corpus, tokenizer):
    def unmasked(chat, tokenizer):
        ids = prompts.encode(chat, tokenizer).input_ids
        return prompts.Encoded(ids, ids)

    with pytest.raises(LabelMaskError, match="has a label"):
        training.ChatDataset(chats(corpus[:2]), tokenizer, 10_000, encode=unmasked)


def test_checks_before_a_resume_count_once(rows, tokenizer):
    """The evaluation at the step that is resumed has not been followed by a step yet."""
    log = [{"step": 2, "eval_loss": 1.0}, {"step": 3, "loss": 1.0}, {"step": 4, "eval_loss": 1.0}]
    loader = torch.utils.data.DataLoader(
        rows, collate_fn=partial(training.collate, pad_id=tokenizer.pad_token_id)
    )
    guard = training.GradientGuard()
    state = SimpleNamespace(log_history=log, global_step=4)
    guard.on_train_begin(None, state, None, train_dataloader=loader)
    assert guard.checked_after_evaluation == 1


def test_checkpoints_of_another_training_are_not_trusted(cfg, artifacts_root):
    folder = training.checkpoints(cfg, "first")
    (folder / "checkpoint-5").mkdir()
    assert (training.checkpoints(cfg, "first") / "checkpoint-5").is_dir()
    assert not (training.checkpoints(cfg, "second") / "checkpoint-5").exists()
    (folder / "checkpoint-5").mkdir()
    (folder / "fingerprint.txt").unlink()  # of no known training
    assert not (training.checkpoints(cfg, "second") / "checkpoint-5").exists()


def test_an_adapter_configuration_of_a_lesson_s_own_stands_for_the_profile_s(cfg):
    own = training.lora_config(dataclasses.replace(cfg, rank=2, targets=["q_proj"]))
    model = training.attach_adapter(models.load_base(cfg, "none"), cfg, own)
    sizes = {n: p.shape[0] for n, p in model.named_parameters() if "lora_A" in n}
    assert sizes and all("q_proj" in name and rank == 2 for name, rank in sizes.items())


def test_a_training_is_logged_where_it_was_asked_for(cfg, tmp_path):
    asked = [training.arguments(cfg, 40, tmp_path, *to).report_to for to in ((), ("tensorboard",))]
    assert asked == [[], ["tensorboard"]]


def test_a_resumed_run_knows_where_it_began_and_what_was_logged_before():
    history, logged = training.History(), [{"step": 5, "loss": 2.0}]
    history.on_train_begin(None, SimpleNamespace(global_step=5, log_history=logged), None)
    assert history.first_step == 5 and history.rows == logged


def test_a_fresh_training_does_not_go_on_from_the_finished_one(cfg, artifacts_root):
    (training.checkpoints(cfg, "finished") / "checkpoint-9").mkdir()
    folder = training.checkpoints(cfg, "finished", fresh=True)
    assert training.sound_checkpoint(folder) is None
    assert [path.name for path in folder.iterdir()] == ["fingerprint.txt"]


def test_a_saved_adapter_is_whole_carries_a_card_and_answers_like_the_one_in_memory(
    cfg, rows, corpus, tokenizer, tmp_path, batch
):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path, compute_dtype="float32")
    with pytest.raises(MissingStep, match="03_qlora_training"):
        models.load_tuned(cfg)
    trainer = trained(cfg, rows, tokenizer, tmp_path / "checkpoints")
    for split in ("train", "validation"):
        write_json(splits.split_file(cfg, split), [recipe.recipe_id for recipe in corpus])
    summary = {
        "fingerprint": "x",
        "versions": training.versions(),
        "steps": 12,
        "rows": models.rows_hash(cfg),
    }
    folder = training.save(training.model, tokenizer, cfg, summary, training.history)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert cfg.data_hash in card and "learning_rate" in card and str(tmp_path) not in card
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == "sanity-llama"  # and not where it lies
    assert json.loads((folder / "history.json").read_text())
    assert training.finished(cfg, "x")["steps"] == 12 and training.finished(cfg, "y") is None
    del summary["rows"]  # as of another lesson, whose rows are its own
    own = training.save(training.model, tokenizer, cfg, summary, [], folder=tmp_path / "own")
    assert training.finished(cfg, "x", own) == summary
    with torch.no_grad():
        in_memory = training.label_loss(training.model.eval(), batch, torch.float32).item()
        reloaded = training.label_loss(models.load_tuned(cfg), batch, torch.float32).item()
    assert reloaded == pytest.approx(in_memory, rel=1e-3)
    write_json(splits.split_file(cfg, "train"), [recipe.recipe_id for recipe in corpus[1:]])
    with pytest.raises(MissingStep, match="other rows|baris lain"):
        models.load_tuned(cfg)


def test_a_saved_adapter_names_its_base_as_the_hub_does_and_the_language_of_its_recipes(
    cfg, tmp_path
):
    """Not the language that the lesson is shown in."""
    cfg = dataclasses.replace(cfg, base_model="Qwen/Qwen3-0.6B", language="en")
    config = write_json(tmp_path / "adapter_config.json", {"base_model_name_or_path": "/home/me"})
    training.describe(tmp_path, cfg, {"versions": {}}, [])
    assert json.loads(config.read_text()) == {"base_model_name_or_path": "Qwen/Qwen3-0.6B"}
    assert "\nlanguage: id\n" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_card_names_the_base_s_licence_and_what_a_lesson_writes_itself_stands_instead(
    cfg, tmp_path
):
    cfg = dataclasses.replace(cfg, licence="Gemma", rank=7)
    write_json(tmp_path / "adapter_config.json", {})
    history = [{"step": 1, "loss": 3.5}, {"step": 2, "loss": 2.5}]
    training.describe(tmp_path, cfg, {"versions": {"torch": "2.0"}, "steps": 2}, history)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "licence (Gemma)" in card and "(rank 7)" in card
    assert "torch 2.0" in card and "| steps | 2 |" in card
    assert json.loads((tmp_path / "history.json").read_text(encoding="utf-8")) == history
    training.describe(tmp_path, cfg, {"versions": {}}, [], "# My own")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# My own"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("kept", [0.0, 0.5], ids=["empty", "cut in half"])
def test_a_torn_adapter_is_said_in_a_sentence_and_trained_again(
    cfg, rows, tokenizer, tmp_path, name, kept
):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path)
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    folder = training.save(model, tokenizer, cfg, {"fingerprint": "x", "versions": {}}, [])
    assert training.finished(cfg, "x") and models.load_tuned(cfg)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(MissingStep, match="not whole|tidak utuh"):
        models.load_tuned(cfg)
    assert training.finished(cfg, "x") is None


@pytest.mark.parametrize(
    ("report_to", "message"),
    [("tensorbord", "Did you mean 'tensorboard'"), ("wandb", "pip install wandb")],
)
def test_a_logger_that_cannot_be_had_is_refused_before_training(monkeypatch, report_to, message):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=message):
        training.check_logger(report_to)


@pytest.mark.parametrize("chosen, mode", [(None, "offline"), ("online", "online")])
def test_what_wandb_logs_stays_on_this_machine_unless_somebody_chose_otherwise(
    monkeypatch, chosen, mode
):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: name)  # installed
    monkeypatch.setenv("WANDB_MODE", chosen or "")
    if chosen is None:
        monkeypatch.delenv("WANDB_MODE")
    training.check_logger("wandb")
    assert os.environ["WANDB_MODE"] == mode


def test_the_plain_script_trains_an_adapter_with_the_libraries_alone(
    cfg, corpus, tokenizer, warm_python, tmp_path
):
    source = (ROOT / "docs" / "plain_qlora.py").read_text(encoding="utf-8")
    assert "helpers" not in source and len(source.splitlines()) <= 80
    file = tmp_path / "train.jsonl"
    lines = [json.dumps({"messages": chat}) for chat in chats(corpus[:8])]
    file.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [warm_python, "docs/plain_qlora.py", models.base_folder(cfg), file, tmp_path / "out"]
        + ["2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tuned = PeftModel.from_pretrained(models.load_base(cfg), str(tmp_path / "out"))
    moved = [w.abs().max().item() for n, w in tuned.named_parameters() if "lora_B" in n]
    assert moved and all(moved)
