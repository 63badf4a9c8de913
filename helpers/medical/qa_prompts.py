"""One place that turns a question into `[Q] ... [A]` token ids, in training, evaluation and chat alike; rows and their check.

The form is the one people gave GPT-2, which has no chat template. `[Q]` and `[A]` are tokens of their own: a model can
only learn their meaning when their rows of the embedding are trained too (helpers/medical/markers.py).
"""

from __future__ import annotations

from ..chat.conversation import escape_special_tokens
from ..course.errors import CourseError, LabelMaskError
from ..training import prompts
from ..training.dataset import Rows
from ..training.prompts import IGNORE, Encoded, label_mask
from .questions import Question

Q, A = "[Q]", "[A]"
MARKERS = (Q, A)


def add_markers(tokenizer):
    """The tokenizer with `[Q]` and `[A]` as single tokens, and a pad token that is not the end token. Returns it."""
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(MARKERS)}, replace_extra_special_tokens=False
    )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens(
            {"pad_token": "[PAD]"}
        )  # GPT-2 has one special token only, its end token
    tokenizer.padding_side = "left"
    return tokenizer


def marker_ids(tokenizer) -> list[int]:
    """Ids of `[Q]` and `[A]`. Raises CourseError when the tokenizer would cut one of them into pieces."""
    ids = [tokenizer(marker, add_special_tokens=False)["input_ids"] for marker in MARKERS]
    if any(len(pieces) != 1 for pieces in ids):
        raise CourseError(
            f"the tokenizer cuts {Q} or {A} into pieces ({ids}): it does not know them as tokens. "
            "Call qa_prompts.add_markers(tokenizer) first."
        )
    return [pieces[0] for pieces in ids]


def prompt_ids(question: str, tokenizer) -> list[int]:
    """Token ids of `[Q] question`, a line break and `[A]`: the model writes on from there.

    Control tokens that somebody typed are broken up, so that a question cannot answer itself.
    """
    specials = sorted(
        {t.content for t in tokenizer.added_tokens_decoder.values() if len(t.content) > 1},
        key=len,
        reverse=True,
    )
    text = escape_special_tokens([{"content": " ".join(question.split())}], specials)[0]["content"]
    return tokenizer(f"{Q} {text}\n{A}", add_special_tokens=False)["input_ids"]


def encode(question: str, answer: str, tokenizer, learn_end: bool = True) -> Encoded:
    """Token ids and labels of one row: the prompt is masked, the answer and the end token are learnt."""
    prompt = prompt_ids(question, tokenizer)
    reply = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"] + [
        tokenizer.eos_token_id
    ]
    labels = label_mask(prompt, reply)
    return Encoded(prompt + reply, labels if learn_end else [*labels[:-1], IGNORE])


def check(row: Encoded, question: str, tokenizer) -> None:
    """Raise LabelMaskError when a row would teach the wrong thing; the same rules as `prompts.check`, and each marker once."""
    ids, labels, prompt = row.input_ids, row.labels, prompt_ids(question, tokenizer)
    q, a = marker_ids(tokenizer)
    end = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id)
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise LabelMaskError(
            f"the pad token is the end token {end}: a collator that masks padding would mask the end as well. "
            "Call qa_prompts.add_markers(tokenizer)."
        )
    if ids[: len(prompt)] != prompt:
        raise LabelMaskError(
            "the tokenised training prompt is not what the chat sends. Build both with qa_prompts.prompt_ids."
        )
    if ids[0] != q or ids[len(prompt) - 1] != a or ids.count(q) != 1 or ids.count(a) != 1:
        raise LabelMaskError(
            f"a row must hold {Q} once, first, and {A} once, before the answer; found {ids.count(q)} and {ids.count(a)}."
        )
    if any(label != IGNORE for label in labels[: len(prompt)]):
        raise LabelMaskError(
            f"the prompt has labels: the model would learn to ask. The first {len(prompt)} labels must be {IGNORE}."
        )
    if ids[-1] != tokenizer.eos_token_id or labels[-1] != tokenizer.eos_token_id:
        raise LabelMaskError(
            f"the end token {end} at position {len(ids) - 1} is masked or missing: the tuned model would never stop."
        )
    if len(ids) < len(prompt) + 2 or labels[len(prompt) :] != ids[len(prompt) :]:
        raise LabelMaskError(
            "the answer is empty, or one of its labels is masked or shifted. The model shifts the labels itself."
        )


class QADataset(Rows):
    """Rows of one split; `questions` holds those that fit the length limit."""

    def __init__(self, questions: list[Question], tokenizer, max_length: int):
        super().__init__(
            questions,
            lambda item: encode(item.question, item.answer, tokenizer),
            lambda row, item: check(row, item.question, tokenizer),
            max_length,
        )
        self.questions = self.kept


class BaseRows:
    """The same questions in the way the base model knows: its own chat template, or "Question: ... Answer:" where it has none.

    `prompts` holds the token ids to write on from, `rows` those with the answer, for the loss.
    """

    def __init__(self, questions: list[Question], tokenizer):
        self.prompts = [self._prompt(item.question, tokenizer) for item in questions]
        self.rows = []
        for prompt, item in zip(self.prompts, questions):
            gap = "" if tokenizer.chat_template else " "
            reply = tokenizer(gap + item.answer, add_special_tokens=False)["input_ids"] + [
                tokenizer.eos_token_id
            ]
            self.rows.append(Encoded(prompt + reply, label_mask(prompt, reply)))

    @staticmethod
    def _prompt(question: str, tokenizer) -> list[int]:
        if tokenizer.chat_template:
            return prompts.prompt_ids([{"role": "user", "content": question}], tokenizer)
        return tokenizer(f"Question: {question}\nAnswer:", add_special_tokens=False)["input_ids"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        return {"input_ids": self.rows[i].input_ids, "labels": self.rows[i].labels}
