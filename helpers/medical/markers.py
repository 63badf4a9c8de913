"""Two new tokens for a quantised model: rows of the embedding that start at the mean and are trained beside LoRA."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from .. import training
from ..course.errors import CourseError, MissingStep
from ..course.settings import Settings
from ..training import checkpoints, models
from . import qa_prompts, questions
from .qa_prompts import add_markers, marker_ids

FOLDER = "medical"  # below cfg.artifacts: what lesson 07 leaves


def medical(cfg: Settings) -> Path:
    return cfg.artifacts / FOLDER


def load_tokenizer(cfg: Settings):
    """The base model's tokenizer with the two markers. GPT-2's own, which `models.load_tokenizer` would refuse for its pad token, works."""
    from transformers import AutoTokenizer

    return add_markers(AutoTokenizer.from_pretrained(models.base_folder(cfg)))


@torch.no_grad()
def add_rows(model, tokenizer) -> list[int]:
    """Give the markers a row in input and output embedding, each the mean of the old rows. Returns their ids.

    The mean row makes a new token about as likely as an average one: the model's other predictions hardly change
    (Hewitt 2021). A row of random numbers could outshine all the others. Models whose matrix is longer than their
    vocabulary have room already.
    """
    ids, old = marker_ids(tokenizer), model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > old:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    known = min(old, min(ids))
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = embedding.weight
        weight[known : len(tokenizer)] = (
            weight[:known].mean(dim=0, dtype=torch.float32).to(weight.dtype)
        )
    return ids


def lora_config(cfg: Settings, ids: list[int]):
    """Lesson 03's LoRA, and of the input embedding just the rows `ids`.

    Where input and output share one matrix, PEFT lets the output rows follow. Where they do not, the output rows stay at
    the mean: the model reads the markers and never has to write them.
    """
    config = training.lora_config(cfg)
    config.trainable_token_indices = ids
    return config


def attach(model, cfg: Settings, ids: list[int]):
    """Lesson 03's frozen model with a fresh adapter, and trainable rows `ids`."""
    model = training.attach_adapter(model, cfg, lora_config(cfg, ids))
    # PEFT compares the vocabulary with the base model's of this name; finding it longer, it would save the whole matrix
    # with each checkpoint. The two rows are all that is needed: `add_rows` makes the others again.
    model.peft_config["default"].base_model_name_or_path = ""
    return model


def embeddings(model) -> dict[str, torch.Tensor]:
    """Input and output embedding as the model uses them now, trained rows in place. Shapes (vocabulary, width)."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {
        name: part.weight.detach().float().clone()
        for name, part in (
            ("input", causal.get_input_embeddings()),
            ("output", causal.get_output_embeddings()),
        )
    }


def moved_rows(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Numbers of the rows in which two matrices differ."""
    return (before != after).any(dim=1).nonzero().flatten().tolist()


def adapter_folder(cfg: Settings) -> Path:
    return medical(cfg) / "adapter"


def fingerprint(
    cfg: Settings, train: qa_prompts.QADataset, validation: qa_prompts.QADataset
) -> str:
    """Sixteen hex digits of everything this training depends on: lesson 03's fingerprint and the code of the markers."""
    digest = hashlib.sha256(checkpoints.fingerprint(cfg, train, validation).encode())
    for module in (__file__, qa_prompts.__file__, questions.__file__):
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()[:16]


def save(model, tokenizer, cfg: Settings, summary: dict, history: list[dict]) -> Path:
    """Adapter with its two rows, tokenizer with the markers, history and card in `medical/adapter`, whole or not at all."""
    return checkpoints.save(
        model,
        tokenizer,
        cfg,
        summary,
        history,
        folder=adapter_folder(cfg),
        card=model_card(cfg, summary),
    )


def model_card(cfg: Settings, summary: dict) -> str:
    """Markdown model card; what the adapter must not be used for comes first."""
    facts = {**cfg.as_dict(), **{k: v for k, v in summary.items() if not isinstance(v, dict)}}
    return "\n".join(
        [
            "---",
            f"language: {cfg.data_language}",
            "library_name: peft",
            "tags: [qlora, question-answering, dapur-llm]",
            "---",
            "",
            f"# Wellness Q&A adapter for {cfg.as_dict()['base_model']}",
            "",
            "**Not medical advice. Bukan nasihat medis.** Must not be used for health decisions, triage or a service to patients. It was tuned "
            f"on {summary.get('train_rows', 'a few')} short texts that no clinician has reviewed; it imitates their tone and makes facts up, doses included.",
            "",
            f"A LoRA adapter (rank {cfg.rank}) and two embedding rows, `[Q]` and `[A]`, from lesson 07 of the course Dapur LLM. Add the markers to the "
            f"tokenizer and the rows to the base model before loading it (helpers/medical/markers.py). The base model's licence ({cfg.licence}) applies to "
            "the base model.",
            "",
            "Libraries: " + ", ".join(f"{k} {v}" for k, v in summary["versions"].items()),
            "",
            "| setting | value |",
            "|---|---|",
            *[f"| {k} | {v} |" for k, v in facts.items()],
            "",
        ]
    )


def load_tuned(cfg: Settings, tokenizer, base=None):
    """Base + rows + the adapter that lesson 07 saved; `base` may be a model that has its rows already.

    Raises MissingStep without an adapter, CourseError when it belongs to another base model or tokenizer. The trained rows are
    written into the embedding once: PEFT would otherwise copy the whole matrix at every token.
    """
    from peft import PeftModel
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    folder, ids = adapter_folder(cfg), marker_ids(tokenizer)
    if not (folder / "adapter_model.safetensors").is_file():
        raise MissingStep(
            f"no adapter in {folder.relative_to(cfg.artifacts_root.parent)}. Run notebook 07_medical_qa with the same "
            "profile, data language and seed first."
        )
    if base is None:
        base = models.load_base(cfg)
        add_rows(base, tokenizer)
    try:
        model = PeftModel.from_pretrained(base, str(folder)).eval()
    except (
        RuntimeError,
        IndexError,
        ValueError,
    ) as problem:  # other layers, other shapes, too few rows
        raise CourseError(
            f"the adapter in {folder.name} does not belong to {cfg.base_model}: {str(problem).splitlines()[0]} "
            "Train again with FRESH = True."
        ) from problem
    trained = model.peft_config["default"].trainable_token_indices
    if ids != trained:
        raise CourseError(
            f"the adapter trained the rows {trained}, but this tokenizer has its markers at {ids}: another tokenizer. "
            "Load the one saved beside the adapter."
        )
    for part in model.modules():
        if isinstance(part, TrainableTokensLayer):
            part.merge()
    return model
