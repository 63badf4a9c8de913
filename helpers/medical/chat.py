"""A guarded question-and-answer loop: what is said before, around and instead of the model.

talk = HealthChat(ask, "id")                 # ask(question) -> the model's text
talk.reply("Kenapa saya mengantuk?")         # Reply(kind="answer", text="...")
talk.run(["Halo dunia, apa kabar?", "keluar"], print)
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..course.bilingual import num
from ..course.settings import LANGUAGES, choice
from . import guard as rules

FEWEST_WORDS, MOST_CHARACTERS = 2, 600
EXIT = {"exit", "quit", "keluar", "selesai", "/exit", "/quit", "/keluar"}
TEXTS = tomllib.loads(Path(__file__).with_name("texts.toml").read_text(encoding="utf-8"))


def _one_line(message: str) -> str:
    """One line, without the lone surrogates that some terminals send."""
    return " ".join(message.encode("utf-8", "replace").decode().split())


@dataclass(frozen=True)
class Reply:
    """A reply and its kind: "answer", or why the model's words are not shown (a key of TEXTS)."""

    kind: str
    text: str


class HealthChat:
    """One question, one reply; nothing is remembered.

    `ask(question)` is called only for questions that pass `guard`. `declines(question)` says what
    must not be asked of a model at all, `doctor(question)` where advice to see one goes before the
    model's words; see guard.Guard.
    """

    def __init__(
        self,
        ask: Callable[[str], str],
        language: str = "id",
        declines: Callable[[str], bool] = lambda question: False,
        doctor: Callable[[str], bool] = lambda question: False,
    ):
        self.ask, self.declines, self.doctor = ask, declines, doctor
        self.texts = TEXTS[choice(language, LANGUAGES, "language")]

    def _reply(self, kind: str, **values) -> Reply:
        return Reply(kind, self.texts[kind].format(**values))

    def guard(self, message: str) -> Reply | None:
        """The reply that needs no model, or None; emergency words are looked for first of all."""
        question = _one_line(message)
        if rules.is_emergency(question):
            return self._reply("emergency")
        if question.lower() in EXIT:
            return self._reply("exit")
        if not question:
            return self._reply("empty")
        if len(question) > MOST_CHARACTERS:
            return self._reply("long", n=num(len(question)), most=MOST_CHARACTERS)
        if sum(any(c.isalpha() for c in word) for word in question.split()) < FEWEST_WORDS:
            return self._reply("short")
        return self._reply("decline") if self.declines(question) else None

    def reply(self, message: str) -> Reply:
        """The guard's reply, or the model's with the disclaimer; a dose is not shown."""
        if guarded := self.guard(message):
            return guarded
        question = _one_line(message)
        try:
            text = self.ask(question).strip()
        except Exception as problem:  # whatever broke, the person is told and can go on
            return self._reply("error", problem=f"{type(problem).__name__}: {problem}")
        if not text:
            return self._reply("nothing")
        if rules.names_dose(text):
            return self._reply("dose")
        advice = self.texts["doctor"] + "\n" if self.doctor(question) else ""
        return Reply("answer", f"{advice}{text}\n— {self.texts['disclaimer']}")

    def run(self, lines: Iterable[str], write: Callable[[str], None]) -> int:
        """Answer line by line until an exit word or the end; returns the number of errors."""
        write(self.texts["disclaimer"])
        errors = 0
        for line in lines:
            reply = self.reply(line)
            write(reply.text)
            errors += reply.kind == "error"
            if reply.kind == "exit":
                break
        return errors
