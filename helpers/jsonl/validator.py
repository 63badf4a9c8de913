"""Chat JSONL, `{"messages": [{"role": ..., "content": ...}, ...]}` a line: what would spoil a training or its test.

report = jsonl.validate("data/jsonl/sensor/id.jsonl", train="train.jsonl")
report.ok, report.kinds, report.problems[0].line
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rapidfuzz import fuzz, process

ROLES = ("system", "user", "assistant", "tool")
CONSTANT = 0.5  # an answer that more than this share of the rows gives teaches nothing but itself
FEWEST = 5  # rows from which on an answer can be called constant
NEAR = 90  # similarity in percent (rapidfuzz.fuzz.ratio) from which a prompt is one of the training file
QUOTED = 5  # words of an instruction that an answer must contain to be called its copy

KINDS = {
    "bad_json": "the line is no JSON",
    "bad_text": "the line is no UTF-8",
    "json_nan": "NaN or Infinity, which JSON does not have",
    "no_object": "not an object with a list of messages",
    "bad_message": "a message without a role and a text",
    "unknown_role": "a role that is none",
    "role_order": "roles out of order",
    "empty_prompt": "a system or user message without text",
    "empty_answer": "an answer without text",
    "constant_answer": "one answer for most rows",
    "instruction_in_answer": "the answer is the instruction",
    "nan_in_prompt": "a missing value in the prompt",
    "huge_number": "a number in the prompt that lost its decimal point",
    "duplicate": "the same conversation again",
    "in_train": "a row that the training file has, too",
}
_NAN = re.compile(
    r"(?:^|[:=,(\[|;])[ \t]*['\"]?(?:nan|NaN|NAN|NaT|<NA>|None|null|undefined|-?inf)['\"]?[ \t]*(?:$|[,;)\]|}\n]|\.(?:\s|$))"
)
_HUGE = re.compile(r"\d{13,}\.\d")
# Wordings with which people ask a model to write. One may stand in a good answer; two are an instruction.
_ASKING = re.compile(r"""(?ix)
    \b(?:based\s+on|using)\s+the\s+(?:provided|given|following|above)\b | \b(?:craft|format|keep|write|give|return|provide)\s+(?:the|your|an?)\s+(?:\w+\s+)?
    (?:output|response|answer|reply|recommendation|suggestion|summary)\b | \b(?:an?|the)\s+(?:\w+\s+)?tone\b
    | \b(?:maximum|minimum|at\s+most|no\s+more\s+than|up\s+to|in)\s+(?:of\s+)?\d+\s+(?:short\s+)?(?:words?|sentences?|paragraphs?)\b
    | \b(?:offer|provide)\s+an?\s+[\w\s]{0,40}(?:recommendation|suggestion|answer|response)\b | ^you\s+are\s+an?\b | \bact\s+as\b | \byour\s+task\b
    | \b(?:answer|respond|reply)\s+(?:only|briefly|in|with|as)\b | \bdo\s+not\s+(?:explain|include|mention)\b
    | ^(?:kamu|anda)\s+(?:adalah|seorang)\b | \b(?:berdasarkan|dari)\s+data\s+(?:yang\s+)?(?:diberikan|berikut|di\s+atas)\b
    | \b(?:maksimal|maksimum|paling\s+banyak|dalam)\s+\d+\s+(?:kata|kalimat|paragraf)\b | \b(?:jawab(?:lah)?|balas(?:lah)?)\s+(?:hanya|singkat|dengan|dalam)\b
    | \b(?:berikan|buat(?:lah|kan)?|tulis(?:lah|kan)?|susun(?:lah)?)\s+(?:sebuah\s+|satu\s+)?(?:rekomendasi|saran|jawaban|ringkasan|kalimat)\b
    | \bdengan\s+(?:nada|gaya\s+bahasa)\b | \b(?:jangan|tanpa)\s+(?:menjelaskan|penjelasan|menyebutkan)\b""")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: line from 1 (0: the file as a whole), a kind of `KINDS`, and what was found."""

    line: int
    kind: str
    detail: str


@dataclass
class Report:
    """Rows are lines that are not blank; a row is good when no problem names it. Lengths are words, or tokens with a tokenizer."""

    file: str
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    shapes: Counter = field(default_factory=Counter)  # "system user assistant" -> rows
    answers: Counter = field(default_factory=Counter)  # last answer -> rows
    unit: str = "words"
    lengths: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.rows > 0 and not self.problems

    @property
    def rows_good(self) -> int:
        return self.rows - len({p.line for p in self.problems} - {0})

    @property
    def kinds(self) -> dict[str, int]:
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


def validate(file: str | Path, *, train: str | Path | None = None, tokenizer=None) -> Report:
    """Everything that is wrong with a chat JSONL file.

    `train` is another such file that must not hold a row of this one: a prompt counts as the same when it has the same
    numbers and is at least `NEAR` percent alike. With a `tokenizer` that has a chat template lengths are tokens of it.
    """
    report = Report(str(file), unit="tokens" if tokenizer else "words")
    good, seen = [], {}
    for line, chat in _rows(Path(file), report):
        report.rows += 1
        problems = [] if isinstance(chat, Problem) else list(_problems(line, chat))
        if isinstance(chat, Problem):
            report.problems.append(chat)
            continue
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


def _rows(path: Path, report: Report | None = None) -> Iterator[tuple[int, object]]:
    """(line, value) of each line that is not blank; the value is a Problem where the line cannot be read."""
    constants: list[str] = []
    with open(
        path, "rb"
    ) as handle:  # in bytes a line ends at \n alone, not at U+2028 inside a text
        for line, raw in enumerate(handle, 1):
            raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
            if not raw.strip():
                continue
            constants.clear()
            try:
                value = json.loads(
                    raw.decode("utf-8"),
                    parse_constant=lambda name: constants.append(name) or float("nan"),
                )
            except UnicodeDecodeError as problem:
                yield (
                    line,
                    Problem(
                        line,
                        "bad_text",
                        f"byte {problem.start + 1} is no UTF-8; save the file as UTF-8",
                    ),
                )
                continue
            except (ValueError, RecursionError) as problem:
                told = (
                    str(problem).split(": line")[0]
                    if isinstance(problem, ValueError)
                    else "nested too deeply"
                )
                where = (
                    f" at character {problem.pos + 1}"
                    if isinstance(problem, json.JSONDecodeError)
                    else ""
                )
                hint = (
                    "; the file looks like one JSON array over many lines, write one object a line"
                    if raw.strip() in (b"[", b"]", b"{", b"}", b"},")
                    else ""
                )
                yield line, Problem(line, "bad_json", f"{told}{where}{hint}")
                continue
            if constants and report is not None:
                report.problems.append(
                    Problem(
                        line,
                        "json_nan",
                        f"{constants[0]} is no JSON: strict readers refuse the line",
                    )
                )
            chat = value.get("messages") if isinstance(value, dict) else None
            if not isinstance(chat, list) or not chat:
                found = (
                    f"the keys {', '.join(map(str, value))[:60] or '(none)'}"
                    if isinstance(value, dict)
                    else f"a {type(value).__name__}"
                )
                chat = Problem(
                    line,
                    "no_object",
                    f'expected an object with a list "messages" that is not empty, found {found}',
                )
            yield line, chat


def _problems(line: int, chat: list) -> Iterator[Problem]:
    """What is wrong with one conversation on its own."""
    for number, message in enumerate(chat, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            yield Problem(line, "bad_message", f"message {number} is no object with a role")
            return
    roles = [m["role"] for m in chat]
    unknown = dict.fromkeys(r for r in roles if r not in ROLES)
    for role in unknown:
        yield Problem(line, "unknown_role", f"{role!r}; known: {', '.join(ROLES)}")
    if not unknown and (wrong := _order(roles)):
        yield Problem(line, "role_order", wrong)
    for number, message in enumerate(chat, 1):
        answer, content = message["role"] == "assistant", message.get("content")
        if content is None and message.get("tool_calls"):
            message["content"] = json.dumps(message["tool_calls"])
        elif (
            content is None
            or content != content
            or isinstance(content, str)
            and not content.strip()
        ):
            message["content"] = ""
            yield Problem(
                line,
                "empty_answer" if answer else "empty_prompt",
                f"message {number} ({message['role']}) holds {str(content)!r}",
            )
        elif not isinstance(content, str):
            yield Problem(
                line,
                "bad_message",
                f"the content of message {number} is a {type(content).__name__}, expected a text",
            )
            return
    prompt = [m["content"] for m in chat if m["role"] in ("system", "user")]
    for text in prompt:
        if found := _NAN.search(text):
            yield Problem(
                line,
                "nan_in_prompt",
                f"...{text[max(0, found.start() - 30) : found.end()].strip()}",
            )
            break
    for text in prompt:
        if found := _HUGE.search(text):
            yield Problem(line, "huge_number", f"{found[0]} and so on")
            break
    for text in (m["content"] for m in chat if m["role"] == "assistant"):
        if why := _instruction(text, prompt):
            yield Problem(line, "instruction_in_answer", why)
            break


def _order(roles: list[str]) -> str:
    """What is wrong with the order: at most one system message and first, then user and assistant by turns, the assistant last."""
    turns = roles[1:] if roles[0] == "system" else roles
    if "system" in turns:
        return "a system message after the first message"
    if not turns or turns[0] != "user":
        return (
            f"the conversation begins with {turns[0] if turns else 'system alone'}, expected user"
        )
    if turns[-1] != "assistant":
        return f"the last message is by {turns[-1]}, expected assistant: nothing would be learnt from it"
    spoken = [r for r in turns if r != "tool"]
    for before, after in zip(spoken, spoken[1:]):
        if before == after and "tool" not in turns:
            return f"two {after} messages in a row"
    return ""


def _instruction(answer: str, prompt: list[str]) -> str:
    """Why an answer is no answer but what was asked for, or nothing."""
    plain = _plain(answer)
    for text in map(_plain, prompt):
        if plain and plain == text and len(plain.split()) > 1:
            return f"the answer repeats the prompt: {answer[:60]!r}"
        if len(text.split()) >= QUOTED and f" {text} " in f" {plain} ":
            return f"the answer contains the prompt: {text[:60]!r}"
    found = list(dict.fromkeys(m[0].lower() for m in _ASKING.finditer(answer)))
    return f"the answer asks for one: {' ... '.join(found)[:80]!r}" if len(found) > 1 else ""


def _constant(rows: list[tuple[int, list]], answers: Counter) -> Iterator[Problem]:
    """Problem of the file when one answer is given by more than `CONSTANT` of its rows; fills `answers`."""
    last = [
        (line, chat[-1]["content"])
        for line, chat in rows
        if chat[-1]["role"] == "assistant" and chat[-1]["content"].strip()
    ]
    answers.update(text for _, text in last)
    plain = Counter(_plain(text) for _, text in last)
    if len(last) >= FEWEST and plain.most_common(1)[0][1] > CONSTANT * len(last):
        text, count = plain.most_common(1)[0]
        yield Problem(0, "constant_answer", f"{count} of {len(last)} answers are {text[:60]!r}")


def _leaks(rows: list[tuple[int, list]], train: Path) -> Iterator[Problem]:
    """Rows whose prompt is one of the training file, word for word or nearly so with the same numbers."""
    known: dict[tuple, dict[str, int]] = {}
    for line, chat in _rows(train):
        if not isinstance(chat, Problem) and (text := _asked(chat)):
            known.setdefault(_numbers(text), {}).setdefault(text, line)
    for line, chat in rows:
        text = _asked(chat)
        alike = known.get(_numbers(text), {}) if text else {}
        if text in alike:
            yield Problem(line, "in_train", f"the prompt of line {alike[text]} of {train.name}")
        elif found := process.extractOne(text, list(alike), scorer=fuzz.ratio, score_cutoff=NEAR):
            yield Problem(
                line,
                "in_train",
                f"{found[1]:.0f} % the prompt of line {alike[found[0]]} of {train.name}",
            )


def _asked(chat: list) -> str:
    """What the user says in a conversation, to compare by."""
    texts = [m.get("content") for m in chat if isinstance(m, dict) and m.get("role") == "user"]
    return _plain("\n".join(t for t in texts if isinstance(t, str)))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[\w.,%+-]*\w|[^\w\s]", text.lower()))


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+(?:[.,]\d+)*", text))


def _lengths(chats: list[list], tokenizer) -> dict[str, dict[str, float]]:
    """Total, mean, median, 95th percentile and longest of prompt, answer and whole row, in words or tokens."""

    def size(text: str) -> int:
        return (
            len(tokenizer(text, add_special_tokens=False)["input_ids"])
            if tokenizer
            else len(text.split())
        )

    def whole(chat: list) -> int:
        if tokenizer and getattr(tokenizer, "chat_template", None):
            return size(tokenizer.apply_chat_template(chat, tokenize=False))
        return sum(size(m["content"]) for m in chat)

    chats = [
        [{"role": m["role"], "content": m["content"]} for m in chat]
        for chat in chats
        if all(m["role"] in ROLES for m in chat)
    ]
    parts = {
        "answer": [
            sum(size(m["content"]) for m in chat if m["role"] == "assistant") for chat in chats
        ],
        "row": list(map(whole, chats)),
    }
    return {
        part: {
            "total": sum(sizes),
            "mean": statistics.fmean(sizes),
            "median": statistics.median(sizes),
            "p95": sorted(sizes)[max(0, -(-len(sizes) * 95 // 100) - 1)],
            "longest": max(sizes),
        }
        for part, sizes in parts.items()
        if sizes
    }
