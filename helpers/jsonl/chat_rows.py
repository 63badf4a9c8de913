"""Chat-JSONL rows ready for training: read with every fault named, encoded with `prompts.encode`, checked, the too long ones set aside."""

from __future__ import annotations

import json
from pathlib import Path

from ..course.errors import CourseError
from ..training import prompts
from ..training.dataset import Rows
from . import validator


def write(chats: list[list[dict]], path: str | Path) -> Path:
    """Write conversations as chat JSONL, `{"messages": [...]}` a line: what a hosted service takes as it is."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"messages": chat}, ensure_ascii=False) + "\n" for chat in chats)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return path


def faults(report: validator.Report, most: int = 3) -> str:
    """The first faults of a validated file, each with its line, as one sentence."""
    named = [
        f"{f'line {p.line}' if p.line else 'the whole file'}: {p.kind} ({p.detail})"
        for p in report.problems[:most]
    ]
    rest = len(report.problems) - len(named)
    return f"{Path(report.file).name}: {'; '.join(named)}{f'; and {rest} more' if rest > 0 else ''}"


def read(path: str | Path) -> list[list[dict]]:
    """The conversations of a chat-JSONL file. Raises CourseError that names the lines when the validator finds a fault."""
    report = validator.validate(path)
    if not report.ok:
        raise CourseError(
            f"this file cannot be trained on. {faults(report)}. Mend these lines and validate again: "
            f"python -m helpers data validate-jsonl {Path(path).name}"
        )
    return [
        json.loads(line)["messages"]
        for line in Path(path).read_text(encoding="utf-8-sig").split("\n")
        if line.strip()
    ]


class ChatRows(Rows):
    """Conversations as rows; `chats` holds those that fit. Only the last answer of a conversation is learnt."""

    def __init__(self, chats: list[list[dict]], tokenizer, max_length: int):
        super().__init__(
            chats,
            lambda chat: prompts.encode(chat, tokenizer),
            lambda row, chat: prompts.check(row, chat, tokenizer),
            max_length,
        )
        self.chats = self.kept
