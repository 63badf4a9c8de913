"""`[Q]` and `[A]` as tokens of their own: tokenizer and chat template, embedding rows, adapter."""

from __future__ import annotations

from pathlib import Path

import torch

from . import models, prompts, training
from .chat import escape_special_tokens
from .files import CourseError, LabelMaskError, first_line
from .settings import Settings

MARKERS = ("[Q]", "[A]")
TEMPLATE = "[Q] {{ messages[0]['content'] }}\n[A]"  # one question; the model writes on from [A]


def add_markers(tokenizer):
    """The tokenizer with `[Q]` and `[A]` as single tokens and a chat template that uses them.

    Its pad token is another one than its end token. Returns the tokenizer that was given.
    """
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(MARKERS)}, replace_extra_special_tokens=False
    )
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):  # GPT-2 has an end token only
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.padding_side = "left"
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def load_tokenizer(cfg: Settings):
    """The base model's tokenizer with the markers."""
    from transformers import AutoTokenizer

    base = models.base_folder(cfg)
    return add_markers(AutoTokenizer.from_pretrained(base, trust_remote_code=False))


def marker_ids(tokenizer) -> list[int]:
    """Ids of `[Q]` and `[A]`. Raises CourseError when they are unknown to the tokenizer."""
    ids = tokenizer.convert_tokens_to_ids(list(MARKERS))
    if {None, tokenizer.unk_token_id} & set(ids):
        raise CourseError(
            "the tokenizer cuts [Q] or [A] into pieces: it does not know them as tokens. "
            "Call markers.add_markers(tokenizer) first."
        )
    return ids


def messages(question: str, tokenizer, answer: str = "") -> list[dict]:
    """A question as chat messages, with its answer where one is given.

    Special tokens that somebody typed are broken up: a question cannot slip in `[A]` and answer
    itself. The answer begins with a space, as words do in GPT-2's vocabulary.
    """
    known = {t.content for t in tokenizer.added_tokens_decoder.values() if len(t.content) > 1}
    asked = {"role": "user", "content": " ".join(question.split())}
    chat = escape_special_tokens([asked], sorted(known, key=len, reverse=True))
    return [*chat, {"role": "assistant", "content": f" {answer}"}] if answer else chat


def check(row: prompts.Encoded, chat: list[dict], tokenizer) -> None:
    """Raise LabelMaskError for a row that would teach the wrong thing.

    The rules of `prompts.check`, and each marker once: `[Q]` first, `[A]` before the answer.
    """
    prompts.check(row, chat, tokenizer)
    q, a = marker_ids(tokenizer)
    first = next(i for i, label in enumerate(row.labels) if label != prompts.IGNORE)
    found = row.input_ids.count(q), row.input_ids.count(a)
    if found != (1, 1) or row.input_ids[0] != q or row.input_ids[first - 1] != a:
        raise LabelMaskError(
            "a row must hold [Q] once, first, and [A] once, before the answer; "
            f"found {found[0]} and {found[1]} of them."
        )


@torch.no_grad()
def add_rows(model, tokenizer) -> list[int]:
    """Give the markers a row in input and output embedding, the mean of the old rows.

    Returns their ids. With the mean a new token is about as likely as an average one, and other
    predictions hardly change (Hewitt 2021). A matrix longer than the vocabulary is not resized.
    """
    ids, old = marker_ids(tokenizer), model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > old:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    known = min(old, min(ids))
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = embedding.weight  # (vocabulary, width)
        mean = weight[:known].mean(dim=0, dtype=torch.float32)  # (width,)
        weight[known : len(tokenizer)] = mean.to(weight.dtype)
    return ids


def adapter_folder(cfg: Settings) -> Path:
    """Where lesson 07 saves its adapter."""
    return cfg.artifacts / "medical" / "adapter"


def model_card(cfg: Settings, summary: dict) -> str:
    """Markdown model card; what the adapter must not be used for comes first."""
    text = (
        "**Not medical advice. Bukan nasihat medis.** Must not be used for health decisions, "
        f"triage or a service to patients. It was tuned on {summary.get('train_rows', 'a few')} "
        "short texts that no clinician has reviewed; it imitates their tone and makes facts up, "
        f"doses included.\n\nA LoRA adapter (rank {cfg.rank}) and two embedding rows, `[Q]` and "
        "`[A]`, from lesson 07 of the course Dapur LLM. Add the markers to the tokenizer and the "
        "rows to the base model before loading it (helpers/medical_markers.py). The base model's "
        f"licence ({cfg.licence}) applies to the base model."
    )
    return training.model_card(cfg, summary, "Wellness Q&A adapter", text)


def load_tuned(cfg: Settings, tokenizer, base=None):
    """Base model, marker rows and the adapter that lesson 07 saved, in evaluation mode.

    `base` may be a model that has its rows already. The trained rows are written into the
    embedding once: PEFT would otherwise copy the whole matrix at every token.
    Raises MissingStep without an adapter, CourseError when it belongs to another base model or
    tokenizer.
    """
    from peft import PeftModel
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    ids = marker_ids(tokenizer)
    folder = models.require_adapter(cfg, adapter_folder(cfg), "07_medical_qa")
    if base is None:
        base = models.load_base(cfg)
        add_rows(base, tokenizer)
    try:
        model = PeftModel.from_pretrained(base, str(folder)).eval()
    except (RuntimeError, IndexError, ValueError) as problem:  # other layers, shapes, rows
        raise CourseError(
            f"the adapter in {folder.name} does not belong to {cfg.base_model}: "
            f"{first_line(problem)} Train again with FRESH = True."
        ) from problem
    trained = model.peft_config["default"].trainable_token_indices  # type: ignore[attr-defined]
    if ids != trained:
        raise CourseError(
            f"the adapter trained the rows {trained}, but this tokenizer has its markers at {ids}: "
            "another tokenizer. Load the one saved beside the adapter."
        )
    for part in model.modules():
        if isinstance(part, TrainableTokensLayer):
            part.merge()
    return model
