"""Chat JSONL: one `{"messages": [{"role": ..., "content": ...}, ...]}` a line.

found = jsonl.validate("test.jsonl", train="train.jsonl")  # a table, empty where all is well
rows = jsonl.load_task("bank", "id")                       # of lessons 08 and 09, by split
"""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from jinja2 import TemplateError
from jsonschema import Draft202012Validator, FormatChecker

from . import splits
from .files import CourseError, read_toml, sentence, write_text
from .prompts import check_labels, encode
from .settings import ROOT, choice
from .show import tr

TABLES = read_toml("jsonl.toml")
KINDS = TABLES["kind"]  # what `validate` finds
# What a row must look like, as JSON Schemas; the arguments of a call are an object, as JSON text,
# without NaN: what json.loads would take for a number beyond JSON goes to int, which refuses it.
FORMATS = FormatChecker(())
FORMATS.checks("arguments", (ValueError, TypeError, RecursionError))(
    lambda text: isinstance(json.loads(text, parse_constant=int), dict)
)
SHAPES = {k: Draft202012Validator(s, format_checker=FORMATS) for k, s in TABLES["shape"].items()}
BANK_SYSTEM = {"id": "Klasifikasi.", "en": "Classify."}  # short on purpose: every row pays for it


def validate(file: str | Path, train: str | Path | None = None, tokenizer=None) -> pd.DataFrame:
    """What is wrong with a chat JSONL file: line (0: the whole file), kind, error, meaning, detail.

    Where `error` is true the row cannot be trained on; the others are warnings, which refuse
    nothing. `train` is a training file that must not share a prompt with this one. With a
    `tokenizer` a row that is longer than its model can read is an error, and one that a training
    with its chat template would refuse.
    """
    # A file in another form is told once, with what converts it; its lines would say nothing new.
    found = file_faults(file)
    lines = [] if found and KINDS[found[0][1]]["error"] else numbered_lines(file)
    # `known`: conversation -> its first line; `prompts`: line -> what the user says there.
    known, answers, prompts = {}, defaultdict(list), {}
    for line, raw in lines:
        chat, kind, detail = first_fault(raw, tokenizer)
        # A line with an error is told by it alone; warnings are for rows that can be learnt from.
        if kind:
            found.append((line, kind, detail))
            continue
        # Warnings: what may be meant that way. A conversation is the same whatever its case and
        # spaces; a real file, of short messages say, holds hundreds of them, and they are learnt
        # as often as they stand there.
        first = known.setdefault(tuple(map(plain, chat)), line)
        if first != line:
            found.append((line, "duplicate", f"the same as line {first}"))
        prompts[line] = prompt_of(chat)
        answers[plain(chat[-1])].append(line)
        for kind, text in (("missing_value", prompts[line]), ("other_marker", str(chat))):
            if seen := re.search(KINDS[kind]["says"], text):
                found.append((line, kind, seen[0]))
    # What only the whole file shows: that it is empty, or teaches nearly always one answer.
    if not known and not any(KINDS[kind]["error"] for _, kind, _ in found):
        found.append((0, "no_messages", "the file holds no row"))
    for answer, at in answers.items():
        if len(at) > max(4, len(prompts) / 2):
            told = f"{len(at)} times {answer[:60]!r}: lines {str(at[:9])[1:-1]}"
            found.append((0, "same_answer", told + ", ..." * (len(at) > 9)))
    # A question that was learnt measures memory, not what the model can do.
    if train:
        found += shared_prompts(prompts, Path(train))
    # What each kind means, in the display language, and whether it is an error: jsonl.toml has it.
    table = pd.DataFrame(sorted(found), columns=["line", "kind", "detail"])
    kinds = pd.DataFrame(KINDS).T.rename(columns={tr("id", "en"): "meaning"})
    table = table.join(kinds, on="kind").astype({"error": bool})
    return table[["line", "kind", "error", "meaning", "detail"]]


def numbered_lines(path: str | Path) -> list[tuple[int, bytes]]:
    """Lines that are not blank; as bytes they end at \\n alone, not at U+2028 in a text."""
    # Some editors begin a file with a UTF-8 byte order mark, which JSON does not allow.
    lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def file_faults(path: str | Path) -> list[tuple[int, str, str]]:
    """A finding where a file as a whole is something else than plain chat JSONL; else none.

    The detail is a line of Python that writes what the file should be beside it.
    """
    text = Path(path).read_bytes().decode(errors="replace")
    # `head` is what such a file begins with: its encoding, brackets, or what it calls its texts.
    for kind, about in KINDS.items():
        if "head" in about and re.search(about["head"], text):
            # The name as Python writes it; without apostrophes, which YAML would show twice.
            name = json.dumps(str(path)).replace("'", r"\u0027")
            return [(0, kind, f"Python: {about['cure'].replace('FILE', name)}")]
    return []


def first_fault(raw: bytes, tokenizer=None) -> tuple[list[dict], str, str]:
    """A line's conversation, and kind and detail of its first error: [] and both, or "" and ""."""
    # Text and JSON. Python's parser accepts half a character as an escape ("\ud83d"), and NaN and
    # Infinity, which no provider takes; writing the value finds both.
    try:
        value = json.loads(raw.decode())
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        copy.deepcopy(value)  # nested too deeply for any of the steps below
    except UnicodeError as problem:
        return [], "bad_text", problem.reason
    except (ValueError, RecursionError) as problem:
        # Causes that the parser's words do not name: quotes, commas, zero bytes.
        text = raw.decode()
        causes = (k for k, about in KINDS.items() if re.search(about.get("holds", "(?!)"), text))
        return [], next(causes, "bad_json"), str(problem)
    # Shape: an object with a list of messages, each with a role, a text, a weight, calls of tools.
    for kind, shape in SHAPES.items():
        for wrong in shape.iter_errors(value):
            return [], kind, f"{wrong.json_path}: {wrong.message}: {wrong.instance!r}"[:200]
    # End and order: what is learnt is the model's. The roles are one string, "system user assistant
    # ", which one regular expression can judge: at most one system message, then turns of user and
    # assistant; within a turn tools may be called.
    chat = value["messages"]
    if chat[-1]["role"] != "assistant":
        return [], "no_answer", f"the last message is by {chat[-1]['role']}: {str(chat[-1])[:90]}"
    if wrong := calls_fault(chat):
        return [], "tool_calls", wrong
    roles = "".join(f"{message['role']} " for message in chat)
    if not re.fullmatch(TABLES["order"], roles):
        return [], "role_order", roles
    # A row that ends with a call of a tool is right for a provider; here it teaches nothing.
    if not rows_to_learn(chat) and not chat[-1].get("tool_calls"):
        return [], "nothing_learnt", "weight 0 on every answer"
    # A control token that somebody typed would be a real one: no training takes it. These are the
    # course's models' own; another tokenizer's are found below, by the check of the training.
    if marker := re.search(KINDS["control_marker"]["says"], str(chat)):
        return [], "control_marker", marker[0]
    # Length: the tokens of the texts; what the template adds is not counted.
    tokens = len(tokenizer(" ".join(map(plain, chat)))["input_ids"]) if tokenizer else 0
    if tokenizer and tokens > tokenizer.model_max_length:
        return [], "too_long", f"{tokens} tokens of {tokenizer.model_max_length}"
    # Where there is a chat template, the check of the training itself has the last word.
    try:
        for part in rows_to_learn(chat) if getattr(tokenizer, "chat_template", None) else []:
            check_labels(encode(part, tokenizer), part, tokenizer)
    except (CourseError, TemplateError) as problem:
        return [], "refused", str(problem)
    return chat, "", ""


def calls_fault(chat: list[dict]) -> str:
    """Where a call of a tool and its answer do not belong together, or ""."""
    waiting = []  # ids of calls that no tool has answered yet; the last calls need no answer
    for number, message in enumerate(chat):
        role, key = message["role"], message.get("tool_call_id")
        ids = [call["id"] for call in message.get("tool_calls") or []]
        if role == "tool" and key in waiting:
            waiting.remove(key)
        # An answer would not say to which of two calls with one id it belongs.
        elif role == "tool" or waiting or len(set(ids)) < len(ids):
            return f"$.messages[{number}] ({role} {key}): no answer to each id: {waiting or ids}"
        else:
            waiting = ids
    return ""


def rows_to_learn(chat: list[dict]) -> list[list[dict]]:
    """What a training makes of a conversation: its beginnings that end with an answer to learn.

    Mostly that is one, up to the last answer. An answer with weight 0 is never learnt, one with
    weight 1 always; a call of a tool is read, not learnt. No answer in text to learn: [].
    """
    # As templates want it: the role system, a text in every message, arguments as an object.
    turns, ends = copy.deepcopy(chat), []
    for number, turn in enumerate(turns, 1):
        turn["role"] = turn["role"].replace("developer", "system")
        turn["content"] = turn.get("content") or ""
        calls = turn.get("tool_calls") or []
        for call in calls:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        # A message after which the conversation can end.
        if turn["role"] == "assistant" and not calls and turn.get("weight") != 0:
            ends.append(number)
    return [turns[:end] for end in ends if end == ends[-1] or turns[end - 1].get("weight") == 1]


def shared_prompts(prompts: dict[int, str], train: Path) -> Iterator[tuple[int, str, str]]:
    """Findings of prompts (by line) that the training file has."""
    # A training file that cannot be read must not pass for one without copies.
    for _, kind, detail in file_faults(train):
        yield 0, kind, f"{train.name}: {detail}"
    known = {prompt_of(first_fault(raw)[0]): line for line, raw in numbered_lines(train)}
    for line, text in prompts.items():
        if text in known:
            yield line, "in_train", f"line {known[text]} of {train.name}"


def plain(message: dict) -> str:
    """A message's text and calls in lower case, with single spaces."""
    calls = message.get("tool_calls") or ""
    return " ".join(f"{message.get('content') or ''} {calls}".lower().split())


def prompt_of(chat: list[dict]) -> str:
    """All that the user says in a conversation."""
    return "\n".join(plain(message) for message in chat if message["role"] == "user")


def read_chats(path: str | Path, tokenizer=None) -> list[list[dict]]:
    """The conversations of a chat JSONL file. Raises CourseError for a file with errors.

    With the `tokenizer` of a training also for rows that this training would refuse.
    """
    found = validate(path, tokenizer=tokenizer)
    if found["error"].any():
        # One line to mend and the command that shows them all: a file may have thousands of errors.
        told = {"path": path, "name": Path(path).name, "n": found["error"].sum()}
        raise CourseError(sentence("chat_errors", **told, **found[found["error"]].iloc[0]))
    # As a chat template knows them: OpenAI's developer is its system.
    chats = (json.loads(raw)["messages"] for _, raw in numbered_lines(path))
    return [[m | {"role": m["role"].replace("developer", "system")} for m in c] for c in chats]


def write_chats(chats: list[list[dict]], path: str | Path) -> Path:
    """Write conversations as chat JSONL."""
    rows = (json.dumps({"messages": chat}, ensure_ascii=False) + "\n" for chat in chats)
    return write_text(path, "".join(rows))


@dataclass(frozen=True)
class Item:
    """One row of a task: the conversation with its answer, and what an answer is judged by."""

    key: str
    chat: list[dict]
    facts: dict = field(hash=False)

    @property
    def question(self) -> list[dict]:
        """The conversation up to the model's turn."""
        return self.chat[:-1]

    @property
    def answer(self) -> str:
        return self.chat[-1]["content"]


def load_task(task: str, language: str) -> dict[str, list[Item]]:
    """Rows of "bank", "marv" or "sensor" by split, in the order of the file.

    `facts` of bank: query, category, subcategory; the answer is the latter two as compact JSON. Of
    marv: topic, fact. Of sensor: reading, action.
    """
    # The split of each row is written down beside the data, the same for both languages.
    folder = ROOT / "data" / "jsonl" / choice(task, ("bank", "marv", "sensor"), "task")
    sides = dict(pd.read_csv(folder / "splits.csv", dtype=str).itertuples(index=False))
    parts = {name: [] for name in splits.NAMES}
    if task == "bank":
        table = pd.read_csv(folder / f"{language}.csv", dtype=str)
        # The bank's rows are a table; the conversations are built here.
        for row in table.to_dict("records"):
            key = row.pop("query_id")
            # Compact, without blanks after ":" and ",": every token of the answer costs time.
            label = {"category": row["category"], "subcategory": row["subcategory"]}
            answer = json.dumps(label, separators=(",", ":"))
            said = {"system": BANK_SYSTEM[language], "user": row["query"], "assistant": answer}
            chat = [{"role": role, "content": text} for role, text in said.items()]
            parts[sides[key]].append(Item(key, chat, row))
    else:
        # The other two are chat JSONL with more keys, which become the facts.
        for _, raw in numbered_lines(folder / f"{language}.jsonl"):
            row = json.loads(raw)
            key, chat = row.pop("id"), row.pop("messages")
            parts[sides[key]].append(Item(key, chat, row))
    return parts
