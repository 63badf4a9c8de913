"""The torch Dataset, transformers' Trainer with the loss at label positions only, and guards.

Lesson 03 writes the same calls in its cells; later lessons and benchmarks take them from here:

    args = arguments(cfg, len(train), folder / "checkpoints")
    trainer = make_trainer(model, cfg, train, validation, tokenizer, args)
    mark = fingerprint(cfg, train, validation, args)
    if not finished(folder / "adapter", mark):
        save(folder / "adapter", trainer, tokenizer, cfg, run(trainer, mark))
"""

import math
import os
import shutil
import time
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import filelock
import pandas as pd
import peft
import torch
import transformers as tf
from huggingface_hub import ModelCardData
from safetensors.torch import load_file, save_file
from transformers import Trainer

from . import course, files, memory, models, planner, prompts, splits
from .files import CourseError, LabelMaskError
from .prompts import IGNORE
from .settings import Settings, compute_dtype

# Rows and batches.


class ChatDataset(torch.utils.data.Dataset):
    """Encoded chats of at most `max_length` tokens; what is longer goes to `too_long`, never cut.

    A chat is a list of messages whose last one is the answer to learn. `rows[i]` is an
    `prompts.Encoded`, made of `chats[i]` by `encode`. Raises LabelMaskError for a row that would
    teach the wrong thing.
    """

    def __init__(self, chats, tokenizer, max_length, encode=prompts.encode):
        self.chats = []
        self.rows = []
        self.too_long = []
        for chat in chats:
            row = encode(chat, tokenizer)
            # Cut, a long row would lose its end token, and the model would not learn to stop.
            if len(row) > max_length:
                self.too_long.append(chat)
                continue
            # One bad row stops everything here. In training it would do its harm in silence.
            prompts.check_labels(row, chat, tokenizer)
            self.chats.append(chat)
            self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        return dict(vars(self.rows[i]))  # input_ids and labels

    @property
    def tokens(self) -> int:
        """Tokens of all rows, prompts and answers."""
        return sum(map(len, self.rows))


def collate(rows: list[dict], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right: three tensors of shape (batch, length).

    The length is that of the longest row, rounded up to a multiple of 16. Ids are padded with
    `pad_id`, labels with -100, attention with 0.
    """
    ids, labels = ([row[name] for row in rows] for name in ("input_ids", "labels"))
    # oneDNN, which multiplies matrices on a processor, compiles and keeps a program for every shape
    # that comes. With each length a shape of its own, 25 MB a step were kept, up to gigabytes.
    width = math.ceil(max(map(len, ids)) / 16) * 16

    # On the right, so that every row's first token stands at position 0. The mask keeps tokens from
    # looking at the padding, the label keeps the loss from counting it.
    def padded(lists, value):
        return torch.tensor([some + [value] * (width - len(some)) for some in lists])

    return {
        "input_ids": padded(ids, pad_id),
        "attention_mask": padded([[1] * len(some) for some in ids], 0),
        "labels": padded(labels, IGNORE),
    }


# The loss.


def label_loss(model, batch, dtype, reduction="mean"):
    """Cross entropy in nats over the label positions; no logits are computed elsewhere.

    `dtype`: of the arithmetic (models.compute_dtype). `reduction`: "mean" or "sum" over all label
    tokens, or "none" for one sum of nats a row, shape (batch,).
    """
    # The decoder gives hidden states, the head makes logits of them. PEFT's wrapper hands on what
    # is asked of the model inside, where the adapter's layers sit.
    # Labels come as long as the ids and unshifted: the shift by one happens here and nowhere else.
    targets = batch["labels"][:, 1:]  # position t predicts token t + 1: (batch, length - 1)
    keep = targets != IGNORE  # (batch, length - 1), True at the label positions

    # What some families do to their logits: Cohere and Granite scale them, Gemma 2 caps them.
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / getattr(config, "logits_scaling", 1)
    cap = getattr(config, "final_logit_softcapping", None)

    # Matrix products run in `dtype`, whatever dtype the weights are kept in.
    with torch.autocast(targets.device.type, dtype=dtype, enabled=dtype != torch.float32):
        # The last position would predict a token that no row has, so it is left out. Of the others,
        # only the label positions go on to the head: logits elsewhere would be thrown away.
        hidden = model.get_decoder()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).last_hidden_state[:, :-1]  # (batch, length - 1, width)
        # In fp32: a softmax over tens of thousands of tokens is too coarse in 16 bits.
        logits = model.get_output_embeddings()(hidden[keep]).float()  # (labels, vocabulary)
        if scale != 1:
            logits = logits * scale
        if cap:
            logits = cap * torch.tanh(logits / cap)
        nats = torch.nn.functional.cross_entropy(logits, targets[keep], reduction="none")
    # The nats put back at their places and added up by row; or one number, nats.mean() or .sum().
    if reduction == "none":
        return torch.zeros(targets.shape, device=nats.device).masked_scatter(keep, nats).sum(dim=1)
    return getattr(nats, reduction)()


class LabelTrainer(Trainer):
    """Trainer whose loss is `label_loss`, averaged over all label tokens of an update.

    `eval_loss` is their average over all label tokens of the evaluation, in nats a token, whatever
    the batch size: Trainer itself takes the mean over rows of the means of their batches.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of all accumulated batches

    def __init__(self, *args, dtype: torch.dtype, **kwargs):
        super().__init__(*args, **kwargs)
        self.dtype = dtype

    def get_eval_dataloader(self, eval_dataset=None):
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        self.labels_a_row = sum(x != IGNORE for row in rows for x in row["labels"]) / len(rows)
        return super().get_eval_dataloader(eval_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # In evaluation Trainer weighs each batch by its rows. Divided by rows times the mean labels
        # of a row, the batches add up to all nats over all label tokens.
        if not model.training:
            num_items_in_batch = len(inputs["labels"]) * self.labels_a_row
        # A sum over this batch, divided by the tokens of the whole update: each token then weighs
        # the same, however the rows fell into batches.
        loss = label_loss(model, inputs, self.dtype, reduction="sum") / num_items_in_batch
        # Evaluation asks for outputs as well; there are no logits, only the loss once more.
        return (loss, {"loss": loss}) if return_outputs else loss


# What watches a training.


class GradientGuard(tf.TrainerCallback):
    """Stop the run when the adapter gets no gradient, a wrong one, or one that is not finite.

    Looks before the first update of a run and before the first after each evaluation, so that a
    broken training fails at once and not after minutes of a loss that falls too slowly.
    `checked_after_evaluation` counts the latter, those before a resume included. Before the first
    step it also looks at what the collator does to the labels: one that masks every pad token masks
    the end token as well, where the two are the same.
    """

    def on_train_begin(self, args, state, control, train_dataloader, **kwargs):
        # As many labels must come out of the collator as stand in the rows.
        rows = list(islice(train_dataloader.dataset, 4))
        learnt = sum(label != IGNORE for row in rows for label in row["labels"])
        kept = (train_dataloader.collate_fn(rows)["labels"] != IGNORE).sum().item()
        if kept != learnt:
            raise LabelMaskError("collator", kept=kept, learnt=learnt)
        self.look = True
        self.overflows = 0
        # The look at the first step is after no evaluation. Those before a resume count too, but
        # the evaluation at the step that is resumed has not been followed by a step yet.
        before = [row for row in state.log_history if "eval_loss" in row]
        self.checked_after_evaluation = sum(row["step"] < state.global_step for row in before) - 1

    def on_evaluate(self, *args, **kwargs):
        self.look = True

    def on_log(self, args, state, control, **kwargs):
        # On a processor rows of many lengths leave gaps between the blocks, which add up.
        if args.use_cpu:
            memory.free()

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        if not self.look:
            return
        step = state.global_step + 1
        # A wrong gradient looks like any other. On processors with AVX512-BF16 an evaluation
        # repacks 4-bit weights into a layout without a backward pass: what comes back from the
        # layers above ends there, and adapters learn from what is left. So the layout is asked.
        kept = [getattr(weight, "quant_state", None) for weight in model.parameters()]
        packed = sum(getattr(quantised, "packing_format_for_cpu", False) for quantised in kept)
        if packed:
            raise CourseError("repacked", n=packed, step=step)
        # B begins at zero, and A's gradient passes through B: at the first step only B has one.
        norms = [
            0.0 if weight.grad is None else weight.grad.norm().item()
            for name, weight in model.named_parameters()
            if "lora_B" in name and weight.requires_grad
        ]
        # All zero, or no gradient at all: the loss would stand still without an error.
        if not any(norms):
            raise CourseError("no_gradient", step=step)
        # Infinite or NaN. In fp16 that is normal while the loss scaler looks for its factor, which
        # begins high; in the other dtypes it is a training that falls apart.
        if not all(map(math.isfinite, norms)):
            self.overflows += 1
            if args.fp16 and self.overflows <= 20:
                return  # the scaler skips this update and halves its factor: look again
            raise CourseError("not_finite", step=step)
        self.checked_after_evaluation += 1
        self.look = False
        self.overflows = 0


class HowFar(tf.TrainerCallback):
    """Tells how many steps of a training are done, and how long the others take."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = course.progress_bar(state.max_steps, state.global_step)

    def on_step_end(self, *args, **kwargs):
        self.bar.update()

    def on_train_end(self, *args, **kwargs):
        self.bar.close()


# The training itself.


def attach_adapter(model, cfg: Settings, lora: peft.LoraConfig | None = None):
    """The frozen model with a fresh adapter (`lora`, or the profile's), trainable and in fp32.

    Embeddings, head and norms of a 4-bit model go to fp32 as well, for stability, unless the
    arithmetic is in bf16, which has the range of fp32. Low-rank adapters: Hu et al. 2021.
    """
    if cfg.quantization == "nf4" and compute_dtype(cfg) != torch.bfloat16:
        # PEFT's own preparation: freeze the base, lift what is left in 16 bits to fp32.
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    # Whatever the dtype: forward then keeps each layer's input alone. The re-entrant kind would
    # need an input that requires a gradient, and that of a frozen base does not.
    if cfg.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    # A frozen weight (outputs, inputs) gets alpha / rank * B @ A added: A (rank, inputs) and B
    # (outputs, rank) are all that learns.
    lora = lora or peft.LoraConfig(
        r=cfg.rank,
        lora_alpha=cfg.alpha,
        lora_dropout=cfg.dropout,
        target_modules=cfg.targets,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(cfg.seed)  # A begins at random
    return peft.get_peft_model(model, lora)


def arguments(cfg: Settings, rows: int, output: Path) -> tf.TrainingArguments:
    """TrainingArguments of a profile for `rows` training rows; lesson 03 says what each is for.

    Raises CourseError when the warm-up is longer than the training: the learning rate would never
    arrive, and the model would stay as it was.
    """
    # Steps in a pass over the rows (an update takes batch * accumulation of them), and in all.
    part = math.ceil(rows / (cfg.batch * cfg.accumulation))
    steps = math.ceil(part * cfg.epochs)
    if cfg.max_steps > 0:
        part = steps = cfg.max_steps
    if cfg.warmup_steps >= steps:
        raise CourseError("long_warmup", warmup=cfg.warmup_steps, steps=steps)
    # Steps between evaluations: so many in a pass, or in the whole run where steps are capped.
    every = max(1, part // cfg.evals_per_epoch)
    args = tf.TrainingArguments(
        output_dir=output,
        per_device_train_batch_size=cfg.batch,
        per_device_eval_batch_size=cfg.batch,
        gradient_accumulation_steps=cfg.accumulation,
        num_train_epochs=cfg.epochs,
        max_steps=cfg.max_steps,
        learning_rate=cfg.learning_rate,
        lr_scheduler_type=cfg.scheduler,
        warmup_steps=cfg.warmup_steps,
        max_grad_norm=cfg.max_grad_norm,
        optim=cfg.optimizer,
        seed=cfg.seed,
        data_seed=cfg.seed,
        train_sampling_strategy="group_by_length",  # like lengths together: little padding
        # fp16 alone needs Trainer: its loss scaler keeps small gradients from becoming zero.
        # `label_loss` sets the dtype of the arithmetic itself.
        fp16=compute_dtype(cfg) == torch.float16,
        gradient_checkpointing=cfg.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=cfg.device.kind == "cpu",
        dataloader_pin_memory=cfg.device.kind == "cuda",
        prediction_loss_only=True,
        # Evaluated and saved at the same steps, so that the best adapter seen is always on disk.
        # Two checkpoints stay: the best one, and the newest to resume from.
        eval_strategy="steps",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        # After a resume, early stopping goes on counting where it was.
        restore_callback_states_from_checkpoint=True,
        logging_steps=min(10, every),
        disable_tqdm=True,
    )
    args._n_gpu = min(args.n_gpu, 1)  # the model sits on one card, even where there are two
    return args


def make_trainer(
    model, cfg: Settings, train, validation, tokenizer, args: tf.TrainingArguments
) -> LabelTrainer:
    """A LabelTrainer with gradient guard; Trainer prints the entries of its log.

    It stops early where the best adapter is kept at the end. `args`: see `arguments`.
    """
    # A training that is too large for the GPU is refused here, by plan, with advice. Otherwise CUDA
    # would refuse it in the middle of a step.
    planner.check_fits(cfg)
    trainer = LabelTrainer(
        model=model,
        dtype=compute_dtype(cfg),
        args=args,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
        callbacks=[GradientGuard(), HowFar()],
    )
    # The last adapter is then `patience` evaluations past the best, which has to come back.
    if args.load_best_model_at_end:
        trainer.add_callback(tf.EarlyStoppingCallback(cfg.patience))
    return trainer


# What a training leaves on disk: checkpoints to resume from, and the finished adapter.

LOCKS = {}  # folder of checkpoints -> the lock that this process holds while it trains there
# Of the libraries that a training's result depends on.
VERSIONS = {
    name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
}


def fingerprint(cfg: Settings, train, validation, *configs) -> str:
    """Key of a training: rows, settings, library versions, and what a lesson's cells set.

    `train` and `validation` give their rows as dicts: a ChatDataset, a Dataset or a list. `configs`
    are objects with a `to_dict` (LoraConfig, BitsAndBytesConfig, TrainingArguments), read before
    the training changes them. Raises CourseError when a test recipe of lesson 02 is among the rows
    to train on.
    """
    # Before anything else: what the model is examined on must not be learnt.
    splits.require_held_out(cfg, getattr(train, "chats", []))
    # Ids and labels themselves: another tokenizer, template or mask gives another key.
    rows = [list(train), list(validation)]
    # Display language and device name teach the model nothing. What the model card leaves out is
    # added: the base model's full path, the kind of device, and lesson 02's rows, which count for
    # no training without a validation: lesson 00 trains before there are any.
    settings = cfg.as_dict() | {
        "base": cfg.base_model,
        "kind": cfg.device.kind,
        "saved": validation and models.rows_hash(cfg),
    }
    del settings["language"], settings["device"]
    # A folder of one's own may hold other weights tomorrow under the same name.
    own = Path(cfg.base_model)
    if own.is_dir():
        settings["weights"] = files.hash_files(sorted(own.glob("*.safetensors")), own)
    shown = []
    for config in configs:
        # The output folder differs from machine to machine and changes no result.
        values = config.to_dict() | {"output_dir": ""}
        # A set, such as PEFT's target modules, has another order in every process.
        shown.append({k: str(sorted(v) if isinstance(v, set) else v) for k, v in values.items()})
    return files.cache_key(rows, settings, VERSIONS, shown)


def finished(folder: Path, mark: str) -> dict | None:
    """Summary of the training with this fingerprint whose adapter is in `folder`, or None."""
    # Where there is none that is whole, it is trained again.
    summary = models.noted(folder)
    return summary if summary.get("fingerprint") == mark else None


def place(output: Path, mark: str) -> Path:
    """Where in `output` the training with this fingerprint keeps its checkpoints."""
    return output / files.cache_key(mark)


def forget(folder: Path) -> None:
    """Remove a training's checkpoints and its note; what else lies there, as logs do, stays."""
    for old in folder.glob("checkpoint-*"):
        shutil.rmtree(old)
    (folder / "fingerprint.txt").unlink()


def resume(output: Path, mark: str, fresh: bool = False) -> str | None:
    """The checkpoint in `place` for `trainer.train(resume_from_checkpoint=...)`, or None.

    The newest one that is whole. With `fresh` they are removed (resumed from its own last one, a
    training would take no step). A run killed while saving leaves a part of a folder, on which
    Trainer would crash: it is passed over, and written anew when the training comes to that step
    again. Raises CourseError where another process is at this very training.
    """
    own = place(output, mark)
    if own not in LOCKS:
        lock = files.lock_of(own)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise CourseError("trains_elsewhere") from None
        LOCKS[own] = lock
    for note in output.glob("*/fingerprint.txt"):
        folder = note.parent
        # A folder with such a note is ours. Another training's goes when it lay still for a day.
        unused = folder.stat().st_mtime < time.time() - 24 * 3600
        if fresh if folder == own else unused:
            forget(folder)
    # Noted before the first step, so that a run killed later finds its own checkpoints.
    files.write_text(own / "fingerprint.txt", mark)
    # The newest first. Its state is written last; those that were removed have none.
    for folder in sorted(own.glob("checkpoint-*"), key=os.path.getmtime, reverse=True):
        if (folder / "trainer_state.json").is_file() and not models.torn(folder):
            return str(folder)


def run(trainer: Trainer, mark: str, fresh: bool = False) -> dict:
    """Train, or go on with the training of this fingerprint (see `resume`); its summary."""
    # From a checkpoint of this very training if one loads, else from step 0.
    output = Path(trainer.args.output_dir)
    checkpoint = resume(output, mark, fresh)
    trainer.args.output_dir = str(place(output, mark))
    seconds = trainer.train(resume_from_checkpoint=checkpoint).metrics["train_runtime"]
    # The guard's count is evidence: gradients still flowed after that many evaluations.
    return {
        "fingerprint": mark,
        "steps": trainer.state.global_step,
        "minutes": round(seconds / 60, 2),
        "best_validation_loss": trainer.state.best_metric,
        "gradient_checks_after_evaluation": trainer.pop_callback(
            GradientGuard
        ).checked_after_evaluation,
    }


def once(trainer: Trainer, cfg: Settings, *configs) -> None:
    """Train; where this very training was done before, take its weights and log from the disk.

    For short trainings that leave no adapter. What it begins with, its rows, its settings and
    `configs` (see `fingerprint`) make it the same; a change of the code of its model or its
    collator does not show in them, so then the file goes by hand. The log is told again.
    """
    learnt = {
        name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad
    }
    begin = [weight.sum().item() for weight in learnt.values()]
    rows = trainer.train_dataset, trainer.eval_dataset or []
    key = files.cache_key(begin, fingerprint(cfg, *rows, trainer.args, *configs))
    weights = Path(trainer.args.output_dir) / f"{key}.safetensors"
    log = weights.with_suffix(".json")  # written last
    if not log.is_file():
        trainer.train()
        files.replace_whole(weights, partial(save_file, learnt))
        files.write_json(log, trainer.state.log_history)
        return
    trainer.state.log_history = files.read_json(log)
    trainer.model.load_state_dict(load_file(weights), strict=False)
    for entry in trainer.state.log_history:
        trainer.state.global_step = entry["step"]
        trainer.callback_handler.on_log(trainer.args, trainer.state, trainer.control, {**entry})


def save(folder: Path, trainer, tokenizer, cfg: Settings, summary: dict, text="", data="") -> Path:
    """Adapter, tokenizer, summary, history and model card in `folder`, whole or not at all.

    `summary`: what `run` gave; `text`: what the card says before its table; `data`: name of the
    dataset that it learnt, the profile's recipes by default.
    """
    # A base model is named, not where it lies on this machine.
    told = cfg.as_dict() | {"data": data or cfg.data_name}
    base = told["base_model"]
    if base == "packaged":
        base = f"HuggingFaceTB/{models.PACKAGED_NAME}"
    # The hub writes the name of a licence small.
    about = ModelCardData(
        base_model=base,
        library_name="peft",
        license=cfg.licence.lower(),
        language=cfg.data_language,
    )
    # With the hash of lesson 02's rows, by which `require_adapter` finds an adapter out of date.
    summary |= {"versions": VERSIONS, "rows": models.rows_hash(cfg), "task": cfg.task}
    table = pd.Series(told | summary, name="value").to_markdown()

    def fill(new):
        # The adapter, without a copy of embeddings, which are frozen; its tokenizer; and what
        # belongs beside them. Our card takes the place of PEFT's.
        trainer.model.peft_config["default"].base_model_name_or_path = base
        trainer.model.save_pretrained(new, save_embedding_layers=False)
        tokenizer.save_pretrained(new)
        files.write_json(new / "training.json", summary)
        # The last row of the log is Trainer's summary of the whole run.
        files.write_json(new / "history.json", trainer.state.log_history[:-1])
        files.write_text(
            new / "README.md", f"---\n{about}\n---\n\n# Adapter for {base}\n\n{text}\n\n{table}\n"
        )

    # Filled beside its place and then renamed, so that no half adapter is ever found there.
    files.write_folder(folder, fill)
    # The checkpoints have served, and whoever waits for this training may have it.
    trained = Path(trainer.args.output_dir)
    if trained in LOCKS:
        forget(trained)
        LOCKS.pop(trained).release()
    return folder
