"""Chat JSONL: one `{"messages": [{"role": ..., "content": ...}, ...]}` a line.

found = jsonl.validate("test.jsonl", train="train.jsonl")  # a table, empty where all is well
rows = jsonl.load_task("bank", "id")                       # of lessons 08 and 09, by split
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import TemplateError
from jsonschema import Draft202012Validator

from . import splits
from .files import CourseError, read_toml, sentence, write_text
from .prompts import check_labels, encode
from .settings import ROOT, choice
from .show import tr

TABLES = read_toml("jsonl.toml")
KINDS = TABLES["kind"]  # what `validate` finds
# What a row must look like, as JSON Schemas.
SHAPES = {kind: Draft202012Validator(shape) for kind, shape in TABLES["shape"].items()}
ORDER = "((system|developer) )?(user assistant )+"  # the roles of a conversation
BANK_SYSTEM = {"id": "Klasifikasi.", "en": "Classify."}  # short on purpose: every row pays for it


def validate(file: str | Path, train: str | Path | None = None, tokenizer=None) -> pd.DataFrame:
    """What is wrong with a chat JSONL file: line (0: the whole file), kind, error, meaning, detail.

    Where `error` is true the row cannot be trained on; the others are warnings, which refuse
    nothing. `train` is a training file that must not share a prompt with this one. With a
    `tokenizer` a row that is longer than its model can read is an error, and one that a training
    with its chat template would refuse.
    """
    found = file_faults(file)
    # A file in another form is told once; its lines would say nothing new.
    other = any(KINDS[kind]["error"] for _, kind, _ in found)
    known, prompts = {}, {}  # conversation -> its first line; line -> what the user says there
    for line, raw in [] if other else numbered_lines(file):
        chat, kind, detail = first_fault(raw, tokenizer)
        # A line with an error is told by it alone; warnings are for rows that can be learnt from.
        if kind:
            found.append((line, kind, detail))
            continue
        # A conversation is the same whatever its case and spaces. A real file, of short messages
        # say, holds hundreds of them, and they are learnt as often as they stand there.
        first = known.setdefault(tuple(map(plain, chat)), line)
        if first != line:
            found.append((line, "duplicate", f"the same as line {first}"))
        prompts[line] = prompt_of(chat)
        for kind, text in (("missing_value", prompts[line]), ("other_marker", str(chat))):
            if seen := re.search(KINDS[kind]["says"], text):
                found.append((line, kind, seen[0]))
    # A question that was learnt measures memory, not what the model can do.
    if train:
        # A training file that cannot be read must not pass for one without copies.
        found += file_faults(train)
        learnt = {prompt_of(first_fault(raw)[0]): at for at, raw in numbered_lines(train)}
        for line, text in prompts.items():
            if text in learnt:
                found.append((line, "in_train", f"line {learnt[text]} of {Path(train).name}"))
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
    """A finding where a file as a whole is something else than plain chat JSONL; else none."""
    text = Path(path).read_bytes().decode(errors="replace")
    for kind, about in KINDS.items():
        if "head" in about and re.search(about["head"], text):
            return [(0, kind, f"{Path(path).name} begins with {text[:60]!r}")]
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
        kind = "nan" if re.search(KINDS["nan"]["says"], raw.decode()) else "bad_json"
        return [], kind, str(problem)
    # Shape: an object with a list of messages, each with a role, a text, perhaps a weight.
    for kind, shape in SHAPES.items():
        for wrong in shape.iter_errors(value):
            return [], kind, f"{wrong.json_path}: {wrong.message}"[:200]
    # End and order: what is learnt is the model's.
    chat = value["messages"]
    if chat[-1]["role"] != "assistant":
        return [], "no_answer", f"the last message is by {chat[-1]['role']}: {str(chat[-1])[:90]}"
    roles = "".join(f"{message['role']} " for message in chat)
    if not re.fullmatch(ORDER, roles):
        return [], "role_order", roles
    learnt = learnt_part(chat)
    if not learnt:
        return [], "nothing_learnt", "weight 0 on every answer"
    # A control token that somebody typed would be a real one: no training takes it. These are the
    # course's models' own; another tokenizer's are found below, by the check of the training.
    if marker := re.search(KINDS["control_marker"]["says"], str(chat)):
        return [], "control_marker", marker[0]
    if not tokenizer:
        return chat, "", ""
    # The check of the training itself has the last word.
    try:
        row = encode(learnt, tokenizer)
        check_labels(row, learnt, tokenizer)
    except (CourseError, TemplateError) as problem:
        return [], "refused", str(problem)
    tokens, most = len(row.input_ids), tokenizer.model_max_length
    if tokens > most:
        return [], "too_long", f"{tokens} tokens of {most}"
    return chat, "", ""


def learnt_part(chat: list[dict]) -> list[dict]:
    """A conversation up to its last answer without weight 0; [] where there is none.

    Chat templates call OpenAI's role developer system.
    """
    turns = [turn | {"role": turn["role"].replace("developer", "system")} for turn in chat]
    while turns and (turns[-1]["role"] != "assistant" or turns[-1].get("weight") == 0):
        turns.pop()
    return turns


def plain(message: dict) -> str:
    """A message's text in lower case, with single spaces."""
    return " ".join(message["content"].lower().split())


def prompt_of(chat: list[dict]) -> str:
    """All that the user says in a conversation."""
    return "\n".join(plain(message) for message in chat if message["role"] == "user")


def read_chats(path: str | Path, tokenizer=None) -> list[list[dict]]:
    """The conversations of a chat JSONL file, each up to the answer that is learnt.

    Raises CourseError for a file with errors; with the `tokenizer` of a training also for rows
    that this training would refuse.
    """
    found = validate(path, tokenizer=tokenizer)
    if found["error"].any():
        # One line to mend and the command that shows them all: a file may have thousands of errors.
        told = {"path": path, "name": Path(path).name, "n": found["error"].sum()}
        raise CourseError(sentence("chat_errors", **told, **found[found["error"]].iloc[0]))
    return [learnt_part(json.loads(raw)["messages"]) for _, raw in numbered_lines(path)]


def write_chats(chats: list[list[dict]], path: str | Path) -> Path:
    """Write conversations as chat JSONL."""
    rows = (json.dumps({"messages": chat}, ensure_ascii=False) + "\n" for chat in chats)
    return write_text(path, "".join(rows))


@dataclass(frozen=True)
class Item:
    """One row of a task: the conversation with its answer, and what an answer is judged by."""

    key: str
    chat: list[dict]
    facts: dict

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
