"""Validate chat JSONL: one `{"messages": [{"role": ..., "content": ...}, ...]}` a line.

    report = jsonl.validate("test.jsonl", train="train.jsonl")
    report.ok, report.kinds, report.problems[0].line

`read_chats` and `write_chats` read and write such files.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import statistics
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jinja2 import TemplateError
from rapidfuzz import fuzz, process

from .cleaning import MARKER
from .files import CourseError, write_text

ROLES = ("system", "user", "assistant", "tool")
CONSTANT = 0.5  # report an answer that more than this share of the rows gives
FEWEST = 5  # rows from which on an answer can be called constant
NEAR = 90  # percent of rapidfuzz.fuzz.ratio from which two prompts count as the same
QUOTED = 5  # words of an instruction that an answer must contain to be called its copy

_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
KINDS = _WORDS["kinds"]
_NAN = re.compile(
    r"(?:^|[:=,(\[|;])[ \t]*['\"]?"
    r"(?:nan|NaN|NAN|NaT|<NA>|None|null|undefined|-?inf)"
    r"['\"]?[ \t]*(?:$|[,;)\]|}\n]|\.(?:\s|$))"
)
_HUGE = re.compile(r"(?<!\d)\d{13,}\.\d")  # the lookbehind keeps it linear in the text's length
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARKER = re.compile(MARKER)
_ASKING = re.compile(_WORDS["asking"])


@dataclass(frozen=True)
class Problem:
    """One finding: line from 1 (0: the file as a whole), a kind of `KINDS`, what was found."""

    line: int
    kind: str
    detail: str


@dataclass
class Report:
    """Findings of one file. Rows are lines that are not blank; a row without a problem is good.

    Lengths are words, or tokens when `validate` was given a tokenizer.
    """

    file: str
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    shapes: Counter = field(default_factory=Counter)  # "system user assistant" -> rows
    answers: Counter = field(default_factory=Counter)  # last answer -> rows
    unit: str = "words"
    lengths: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def rows_good(self) -> int:
        return self.rows - len({p.line for p in self.problems} - {0})

    @property
    def kinds(self) -> dict[str, int]:
        """Kind of problem -> how often, the most frequent first."""
        return dict(Counter(p.kind for p in self.problems).most_common())

    def as_dict(self) -> dict:
        return {
            "file": self.file,
            "ok": self.ok,
            "rows": self.rows,
            "rows_good": self.rows_good,
            "kinds": self.kinds,
            "shapes": dict(self.shapes),
            "different_answers": len(self.answers),
            "unit": self.unit,
            "lengths": self.lengths,
            "problems": [asdict(p) for p in self.problems],
        }

    def summary(self, most: int = 3) -> str:
        """The first problems, each with its line, as one sentence."""
        told = [
            f"{f'line {p.line}' if p.line else 'the whole file'}: {p.kind} ({p.detail})"
            for p in self.problems[:most]
        ]
        rest = len(self.problems) - len(told)
        told += [f"and {rest} more"] if rest > 0 else []
        return f"{Path(self.file).name}: {'; '.join(told)}"


def read_chats(path: str | Path) -> list[list[dict]]:
    """The conversations of a chat JSONL file. Raises CourseError that names the faulty lines."""
    report = validate(path)
    if not report.ok:
        raise CourseError(
            f"this file cannot be trained on. {report.summary()}. Correct these lines and validate "
            f"again: python -m helpers data validate-jsonl {Path(path).name}"
        )
    lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    chats = {n: json.loads(line)["messages"] for n, line in enumerate(lines, 1) if line.strip()}
    for number, chat in chats.items():
        if not all(isinstance(message.get("content"), str) for message in chat):
            raise CourseError(
                f"{Path(path).name}, line {number}: a message without text (tool_calls). Hosted "
                "services take it, the training here does not: leave such rows out."
            )
    return list(chats.values())


def write_chats(chats: list[list[dict]], path: str | Path) -> Path:
    """Write conversations as chat JSONL."""
    rows = (json.dumps({"messages": chat}, ensure_ascii=False) + "\n" for chat in chats)
    return write_text(path, "".join(rows))


def validate(file: str | Path, *, train: str | Path | None = None, tokenizer=None) -> Report:
    """Find everything that is wrong with a chat JSONL file.

    `train` is a training file that must not share a row with this one: two prompts count as the
    same when they hold the same numbers and are at least `NEAR` percent alike. With a `tokenizer`
    lengths are its tokens, chat template included, and its special tokens count as markers.
    """
    report = Report(str(file), unit="tokens" if tokenizer else "words")
    markers = set(getattr(tokenizer, "all_special_tokens", ()))
    good, seen = [], {}
    for line, chat in _rows(Path(file), report.problems):
        report.rows += 1
        if chat is None:
            continue
        problems = list(_problems(line, chat, markers))
        report.problems += problems
        if any(p.kind in ("no_object", "bad_message") for p in problems):
            continue
        report.shapes[" ".join(m["role"] for m in chat)] += 1
        key = tuple((m["role"], _plain(m["content"])) for m in chat)
        if key in seen:
            report.problems.append(Problem(line, "duplicate", f"the same as line {seen[key]}"))
        seen.setdefault(key, line)
        good.append((line, chat))
    if not report.rows and not report.problems:
        report.problems.append(Problem(0, "no_object", "the file holds no row"))
    report.problems += _constant(good, report.answers)
    if train is not None:
        report.problems += _leaks(good, Path(train))
    report.problems.sort(key=lambda p: p.line)
    report.lengths = _lengths([chat for _, chat in good], tokenizer)
    return report


def _rows(path: Path, problems: list[Problem]) -> Iterator[tuple[int, list | None]]:
    """(line, messages) of each line that is not blank; None, and a problem, where it has none."""
    with open(path, "rb") as handle:  # as bytes a line ends at \n alone, not at U+2028 in a text
        for line, raw in enumerate(handle, 1):
            raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
            if not raw.strip():
                continue
            value, found = _parse(raw)
            problems += (Problem(line, kind, _utf8(detail)) for kind, detail in found)
            if found and found[0][0] in ("bad_json", "bad_text"):
                yield line, None
                continue
            chat = value.get("messages") if isinstance(value, dict) else None
            if isinstance(chat, list) and chat:
                yield line, chat
                continue
            what = f"a {type(value).__name__}"
            if isinstance(value, dict):
                what = f"the keys {', '.join(value)[:60] or '(none)'}"
            told = f'expected an object with a list "messages" that is not empty, found {what}'
            problems.append(Problem(line, "no_object", _utf8(told)))
            yield line, None


def _parse(raw: bytes) -> tuple[object, list[tuple[str, str]]]:
    """The JSON value of a line, None when it cannot be read, and problems as (kind, detail)."""
    found: list[tuple[str, str]] = []

    def constant(name: str) -> float:
        found.append(("json_nan", f"{name} is not JSON: strict readers refuse the line"))
        return float("nan")

    def pairs(items: list[tuple[str, object]]) -> dict:
        names = Counter(name for name, _ in items)
        found.extend(
            ("repeated_key", f"{name!r} stands {times} times in one object")
            for name, times in names.items()
            if times > 1
        )
        return dict(items)

    try:
        text = raw.decode("utf-8")
        value = json.loads(text, parse_constant=constant, object_pairs_hook=pairs)
    except UnicodeDecodeError as problem:
        told = f"byte {problem.start + 1} is not UTF-8; save the file as UTF-8"
        return None, [("bad_text", told)]
    except RecursionError:
        return None, [("bad_json", "nested too deeply")]
    except ValueError as problem:
        told = str(problem).split(": line")[0]
        if isinstance(problem, json.JSONDecodeError):
            told += f" at character {problem.pos + 1}"
        if raw.strip() in (b"[", b"]", b"{", b"}", b"},"):
            told += "; is this one JSON array over many lines? Write one object a line"
        return None, [("bad_json", told)]
    return value, list(dict.fromkeys(found))[:3]


def _utf8(text: str) -> str:
    """The text with lone surrogates written as escapes, so that it can be printed and encoded."""
    return text.encode("utf-8", "backslashreplace").decode()


def _problems(line: int, chat: list, markers: set[str]) -> Iterator[Problem]:
    """What is wrong with one conversation on its own. Empty and odd contents become texts."""
    for number, message in enumerate(chat, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            yield Problem(line, "bad_message", f"message {number} is no object with a role")
            return
        message["role"] = _utf8(message["role"])
    roles = [m["role"] for m in chat]
    unknown = dict.fromkeys(r for r in roles if r not in ROLES)
    for role in unknown:
        yield Problem(line, "unknown_role", f"{role!r}; known: {', '.join(ROLES)}")
    if not unknown and (wrong := _order(roles)):
        yield Problem(line, "role_order", wrong)
    for number, message in enumerate(chat, 1):
        where, content = f"message {number} ({message['role']})", message.get("content")
        if content is None and message.get("tool_calls"):
            content = json.dumps(message["tool_calls"])
        if content is None or content != content or content == "" or str(content).isspace():
            kind = "empty_answer" if message["role"] == "assistant" else "empty_prompt"
            yield Problem(line, kind, f"{where} holds {str(content)!r}")
            content = ""
        if not isinstance(content, str):
            told = f"the content of message {number} is a {type(content).__name__}, expected a text"
            yield Problem(line, "bad_message", told)
            return
        if found := _SURROGATE.search(content):
            yield Problem(line, "lone_surrogate", f"{where} holds {found[0]!r}")
            content = _utf8(content)
        marker = _MARKER.search(content)
        if name := marker[0] if marker else next((m for m in markers if m in content), ""):
            yield Problem(line, "control_marker", f"{where} holds {name}")
        message["content"] = content
    yield from _contents(line, chat)


def _contents(line: int, chat: list[dict]) -> Iterator[Problem]:
    """Missing values and lost decimal points in the prompt, and answers that are instructions."""
    prompt = [m["content"] for m in chat if m["role"] in ("system", "user")]
    for kind, pattern in (("nan_in_prompt", _NAN), ("huge_number", _HUGE)):
        if found := next(filter(None, map(pattern.search, prompt)), None):
            told = found.string[max(0, found.start() - 30) : found.end()].strip()[:80]
            yield Problem(line, kind, f"...{told}")
    answers = (m["content"] for m in chat if m["role"] == "assistant")
    if why := next(filter(None, (_instruction(text, prompt) for text in answers)), ""):
        yield Problem(line, "instruction_in_answer", why)


def _order(roles: list[str]) -> str:
    """What is wrong with the order, or nothing.

    At most one system message, and first; then user and assistant take turns, assistant last.
    """
    turns = roles[1:] if roles[0] == "system" else roles
    first = turns[0] if turns else "system alone"
    if "system" in turns:
        return "a system message after the first message"
    if first != "user":
        return f"the conversation begins with {first}, expected user"
    if turns[-1] != "assistant":
        return f"the last message is by {turns[-1]}, expected assistant: nothing would be learnt"
    if "tool" not in turns:
        for before, after in zip(turns, turns[1:]):
            if before == after:
                return f"two {after} messages in a row"
    return ""


def _instruction(answer: str, prompt: list[str]) -> str:
    """Why an answer is an instruction and no answer, or nothing."""
    plain = _plain(answer)
    for text in map(_plain, prompt):
        if plain and plain == text and len(plain.split()) > 1:
            return f"the answer repeats the prompt: {answer[:60]!r}"
        if len(text.split()) >= QUOTED and f" {text} " in f" {plain} ":
            return f"the answer contains the prompt: {text[:60]!r}"
    found = list(dict.fromkeys(m[0].lower() for m in _ASKING.finditer(answer)))
    return f"the answer asks for one: {' ... '.join(found)[:80]!r}" if len(found) > 1 else ""


def _constant(rows: list[tuple[int, list]], answers: Counter) -> Iterator[Problem]:
    """A problem when more than `CONSTANT` of the rows share one answer; fills `answers`."""
    last = [
        (line, chat[-1]["content"])
        for line, chat in rows
        if chat[-1]["role"] == "assistant" and chat[-1]["content"].strip()
    ]
    answers.update(text for _, text in last)
    plain = Counter(_plain(text) for _, text in last)
    often = max(plain, key=plain.get, default="")
    if len(last) >= FEWEST and plain[often] > CONSTANT * len(last):
        told = f"{plain[often]} of {len(last)} answers are {often[:60]!r}"
        yield Problem(0, "constant_answer", told)


def _leaks(rows: list[tuple[int, list]], train: Path) -> Iterator[Problem]:
    """Rows whose prompt is in the training file, or nearly so with the same numbers."""
    known: dict[tuple, dict[str, int]] = {}
    for line, chat in _rows(train, []):
        if chat and (text := _asked(chat)):
            known.setdefault(_numbers(text), {}).setdefault(text, line)
    for line, chat in rows:
        text = _asked(chat)
        alike = known.get(_numbers(text), {}) if text else {}
        told = ""
        if text in alike:
            told = f"the prompt of line {alike[text]} of {train.name}"
        elif found := process.extractOne(text, list(alike), scorer=fuzz.ratio, score_cutoff=NEAR):
            told = f"{found[1]:.0f} % the prompt of line {alike[found[0]]} of {train.name}"
        if told:
            yield Problem(line, "in_train", told)


def _asked(chat: list) -> str:
    """What the user says in a conversation, in the form to compare by."""
    texts = [m.get("content") for m in chat if isinstance(m, dict) and m.get("role") == "user"]
    return _plain("\n".join(t for t in texts if isinstance(t, str)))


def _plain(text: str) -> str:
    """The text in lower case, its words and marks separated by one space; linear in its length."""
    words = []
    for found in re.findall(r"[\w.,%+-]+|[^\w\s]", text.lower()):
        word = found.rstrip(".,%+-")  # "2.5%" -> "2.5", "%"
        words += [word, *found[len(word) :]] if word else found
    return " ".join(words)


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+(?:[.,]\d+)*", text))


def _lengths(chats: list[list], tokenizer) -> dict[str, dict[str, float]]:
    """Total, mean, median, 95th percentile and longest of answers and whole rows."""

    def size(text: str) -> int:
        if tokenizer:
            return len(tokenizer(text, add_special_tokens=False)["input_ids"])
        return len(text.split())

    def whole(chat: list) -> int:
        if getattr(tokenizer, "chat_template", None):
            with contextlib.suppress(TemplateError):  # a template that refuses these roles
                return size(tokenizer.apply_chat_template(chat, tokenize=False))
        return sum(size(m["content"]) for m in chat)

    chats = [
        [{"role": m["role"], "content": m["content"]} for m in chat]
        for chat in chats
        if all(m["role"] in ROLES for m in chat)
    ]
    answers = [sum(size(m["content"]) for m in c if m["role"] == "assistant") for c in chats]
    parts = {"answer": answers, "row": [whole(chat) for chat in chats]}
    return {
        part: {
            "total": sum(sizes),
            "mean": statistics.fmean(sizes),
            "median": statistics.median(sizes),
            "p95": sorted(sizes)[math.ceil(0.95 * len(sizes)) - 1],
            "longest": max(sizes),
        }
        for part, sizes in parts.items()
        if sizes
    }
