"""One place that turns a recipe into chat messages, and a model's text back into a recipe.

Training, evaluation and the chatbot all call this module, so that a model is asked in use exactly what it was
asked in training.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..course.errors import LabelMaskError
from ..data.recipes import Recipe, item_name

IGNORE = -100  # the label that PyTorch's cross entropy skips

SYSTEM = {"id": "Kamu koki Indonesia.", "en": "You are an Indonesian chef."}
REQUEST = {"id": "Buatkan resep {title}.", "en": "Write a recipe for {title}."}
WITH = {"id": " Bahan: {items}.", "en": " Ingredients: {items}."}
HEADINGS = {"id": ("Bahan:", "Langkah:"), "en": ("Ingredients:", "Steps:")}


def wanted_items(recipe: Recipe, most: int = 3) -> list[str]:
    """Names of the ingredients that the request mentions: none for every second recipe, else the first `most`.

    Which recipes get a list depends on the title alone, so that the same recipe is always asked for in the same way.
    """
    if hashlib.sha256(recipe.title.encode()).digest()[0] % 2:
        return []
    names = dict.fromkeys(name for item in recipe.ingredients if (name := item_name(item)))
    return list(names)[:most]


def request(title: str, items: list[str] = (), language: str = "id") -> str:
    """What a person types to ask for a recipe."""
    text = REQUEST[language].format(title=title)
    return text + WITH[language].format(items=", ".join(items)) if items else text


def answer(recipe: Recipe, language: str = "id") -> str:
    """The recipe as the model shall write it: a heading, dashed ingredients, a heading, numbered steps."""
    ingredients, steps = HEADINGS[language]
    return "\n".join(
        [
            ingredients,
            *(f"- {item}" for item in recipe.ingredients),
            "",
            steps,
            *(f"{n}. {step}" for n, step in enumerate(recipe.steps, 1)),
        ]
    )


def messages(recipe: Recipe, language: str = "id") -> list[dict]:
    """Chat messages for one training row: system, request, answer."""
    return [
        *prompt_messages(request(recipe.title, wanted_items(recipe), language), language),
        {"role": "assistant", "content": answer(recipe, language)},
    ]


def prompt_messages(user_text: str, language: str = "id") -> list[dict]:
    """Chat messages up to the model's turn, for one request."""
    return [{"role": "system", "content": SYSTEM[language]}, {"role": "user", "content": user_text}]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row and their labels, equally long; label -100 means "not learnt"."""

    input_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


def prompt_ids(chat: list[dict], tokenizer) -> list[int]:
    """Token ids of a conversation up to and including the marker that opens the model's turn."""
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode(chat: list[dict], tokenizer, learn_end: bool = True) -> Encoded:
    """Token ids of a whole row and its label mask: the prompt is masked, the answer and its end token are learnt."""
    prompt = prompt_ids(chat[:-1], tokenizer)
    reply = tokenizer(chat[-1]["content"], add_special_tokens=False)["input_ids"] + [
        tokenizer.eos_token_id
    ]
    return Encoded(prompt + reply, label_mask(prompt, reply, learn_end))


def label_mask(prompt: list[int], reply: list[int], learn_end: bool = True) -> list[int]:
    """Labels for prompt + reply: -100 on every prompt token, the token itself on every reply token."""
    labels = [IGNORE] * len(prompt) + list(reply)
    if not learn_end:
        labels[-1] = IGNORE  # the classic mistake, kept so that lesson 03 can show what it does
    return labels


def check(row: Encoded, chat: list[dict], tokenizer) -> None:
    """Raise LabelMaskError when a row would teach the wrong thing.

    Holds for every row that reaches training: the prompt is masked and is what the chat will send, the answer is
    learnt, the end token is learnt, pad is not end, and there is at most one beginning token.
    """
    ids, labels = row.input_ids, row.labels
    prompt = prompt_ids(chat[:-1], tokenizer)
    end = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise LabelMaskError(
            f"the pad token is the end token {end}: a collator that masks padding would mask the end "
            "as well. Give the tokenizer another pad token."
        )
    if ids[: len(prompt)] != prompt:
        raise LabelMaskError(
            "the tokenised training prompt is not what the chat sends: it would be asked something it never saw. "
            "Build both with prompts.prompt_ids."
        )
    learnt = [i for i, label in enumerate(labels) if label != IGNORE]
    if not learnt:
        raise LabelMaskError("every label is masked: nothing would be learnt.")
    if learnt[0] < len(prompt):
        raise LabelMaskError(
            f"position {learnt[0]} of the prompt has a label: the model would learn to write requests. "
            f"The first {len(prompt)} labels must be {IGNORE}."
        )
    if any(labels[i] not in (IGNORE, ids[i]) for i in range(len(ids))):
        raise LabelMaskError(
            "a label differs from its token: the labels are shifted. The model shifts them itself."
        )
    if ids[-1] != tokenizer.eos_token_id or labels[-1] != tokenizer.eos_token_id:
        raise LabelMaskError(
            f"the end token {end} at position {len(ids) - 1} is masked or missing: the tuned model would never "
            "stop. Cause: pad token equals end token, or a collator that masks it."
        )
    missing = [i for i in range(len(prompt), len(ids)) if labels[i] == IGNORE]
    if missing:
        raise LabelMaskError(
            f"answer token {missing[0]} is masked: part of the recipe would not be learnt."
        )
    bos = tokenizer.bos_token_id
    template_uses_bos_as_marker = bos is not None and prompt.count(bos) > 1
    if bos is not None and not template_uses_bos_as_marker and ids.count(bos) > 1:
        raise LabelMaskError(
            "there is more than one beginning token: tokenise the rendered template with add_special_tokens=False."
        )
    if len(ids) > 1 and bos is not None and ids[0] == ids[1] == bos:
        raise LabelMaskError(
            "two beginning tokens in a row: tokenise the rendered template with add_special_tokens=False."
        )


_STEP = re.compile(r"\s*\d{1,2}\s*[.)]\s+(.*\S)")
_ITEM = re.compile(r"\s*[-*•]\s+(.*\S)")


def parse(text: str) -> Recipe | None:
    """Read a model's answer back into a recipe, in either language; None when it is not in the course's format.

    The format: a line "Bahan:" or "Ingredients:", at least two "- " items, a line "Langkah:" or "Steps:", at least one
    step, numbered 1, 2, 3, ... without a gap, and nothing else. Both headings are of one language. Every recipe that the
    reader keeps comes back whole from `parse(answer(recipe))`.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    for first, second in HEADINGS.values():
        if not lines or lines[0] != first or lines.count(first) != 1 or lines.count(second) != 1:
            continue
        middle = lines.index(second)
        items = [_ITEM.fullmatch(line) for line in lines[1:middle]]
        steps = [_STEP.fullmatch(line) for line in lines[middle + 1 :]]
        numbers = [
            int(re.match(r"\d+", line)[0]) if step else 0
            for line, step in zip(lines[middle + 1 :], steps)
        ]
        if (
            len(items) < 2
            or not steps
            or not all(items)
            or numbers != list(range(1, len(steps) + 1))
        ):
            return None
        return Recipe(
            title="", ingredients=tuple(m[1] for m in items), steps=tuple(m[1] for m in steps)
        )
    return None
