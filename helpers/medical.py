"""A guarded question-and-answer loop, and the nearest written answer that it gives.

written = Written(library("id"))
talk = HealthChat(written.answer, "id")      # or any other ask(question) -> text
talk.reply("Kenapa saya mengantuk?")         # Reply(kind="answer", text="...")
talk.run(["Halo dunia, apa kabar?", "keluar"], print)
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from . import medical_guard as rules
from .medical_questions import Question
from .settings import LANGUAGES, choice
from .show import num

LEAST = 0.29  # similarity below which there is no answer; lesson 07 chooses it
FEWEST_WORDS, MOST_CHARACTERS = 2, 600
EXIT = {"exit", "quit", "keluar", "selesai", "/exit", "/quit", "/keluar"}
_SEARCH = tomllib.loads(Path(__file__).with_name("search.toml").read_text(encoding="utf-8"))
ENDINGS, FILLERS = re.compile(_SEARCH["endings"]), set(_SEARCH["fillers"].split())
TEXTS = tomllib.loads(Path(__file__).with_name("medical_texts.toml").read_text(encoding="utf-8"))


def _one_line(message: str) -> str:
    """One line, without the lone surrogates that some terminals send."""
    return " ".join(message.encode("utf-8", "replace").decode().split())


def stems(text: str) -> str:
    """Words in lower case without fillers and common endings (search.toml), for the search."""
    words = re.findall(r"[\w'-]+", text.lower().replace("’", "'"))
    return " ".join(ENDINGS.sub("", word) for word in words if word not in FILLERS)


class Written:
    """The written answers of `questions`, found by similarity; refusals are left out.

    A similarity is the mean of two cosines, 0 to 1: between TF-IDF vectors of what is asked and of
    the written question, and of its answer. Of rows with one qa_id the first is used: lesson 07
    measures that other phrasings in the index do not help.
    """

    def __init__(self, questions: list[Question], least: float = LEAST):
        from sklearn.preprocessing import normalize

        first = {q.qa_id: q for q in reversed(questions) if not q.abstain}
        self.questions, self.least = list(first.values())[::-1], least
        vectors = rules.text_vectors(stems)
        vectors.fit([f"{q.question} {q.answer}" for q in self.questions])
        # rows of length 1: their products are cosines
        self.vectors = lambda texts: normalize(vectors.transform(texts))
        self.asked = self.vectors([q.question for q in self.questions])  # (questions, terms)
        self.answers = self.vectors([q.answer for q in self.questions])

    def nearest(self, question: str, hidden: Collection[str] = ()) -> tuple[Question, float]:
        """The written question nearest to what is asked, and their similarity.

        `hidden`: ids of answers to leave out, as if nobody had written them.
        """
        asked = self.vectors([question])
        similar = (asked @ (self.asked + self.answers).T / 2).toarray()[0]
        similar[[q.qa_id in hidden for q in self.questions]] = -1
        return self.questions[similar.argmax()], float(similar.max())

    def about(self, answer: str) -> Question:
        """The written question whose answer is nearest to `answer`."""
        return self.questions[(self.vectors([answer]) @ self.answers.T).toarray()[0].argmax()]

    def answer(self, question: str) -> str:
        """The nearest written question with its answer, or "" below `least`."""
        found, similarity = self.nearest(question)
        return f"[{found.question}]\n{found.answer}" if similarity >= self.least else ""


@dataclass(frozen=True)
class Reply:
    """A reply and its kind: "answer", or why there is none (a key of TEXTS)."""

    kind: str
    text: str


class HealthChat:
    """One question, one reply; nothing is remembered.

    `ask(question)` is called only for questions that pass `guard`; it returns "" where it does not
    know. `declines(question)` says what must not be answered at all, `doctor(question)` where
    advice to see one goes before the answer; see guard.Guard.
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
        """The reply that needs no answer, or None; emergency words are looked for first of all."""
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
        """The guard's reply, or an answer with the disclaimer; a dose is not shown."""
        if guarded := self.guard(message):
            return guarded
        question = _one_line(message)
        try:
            text = self.ask(question).strip()
        except Exception as problem:  # whatever broke, the person is told and can go on
            return self._reply("error", problem=f"{type(problem).__name__}: {problem}")
        if not text:
            return self._reply("unknown")
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
