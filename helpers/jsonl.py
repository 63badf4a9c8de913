"""Chat JSONL: one `{"messages": [{"role": ..., "content": ...}, ...]}` a line.

found = jsonl.validate("test.jsonl", train="train.jsonl")  # a table, empty where all is well
rows = jsonl.load_task("bank", "id")                       # of lessons 08 and 09, by split
"""

import json
import re
from collections import namedtuple
from pathlib import Path

import pandas as pd
from jinja2 import TemplateError
from jsonschema import Draft202012Validator

from . import splits
from .files import CourseError, read_toml, write_text
from .prompts import check_labels, encode
from .settings import ROOT
from .show import tr

TABLES = read_toml("jsonl.toml")
KINDS = TABLES["kind"]  # what `validate` finds
# What a row must look like, as JSON Schemas.
SHAPES = {kind: Draft202012Validator(shape) for kind, shape in TABLES["shape"].items()}


def validate(file: str | Path, train: str | Path | None = None, tokenizer=None) -> pd.DataFrame:
    """What is wrong with a chat JSONL file: line (0: the whole file), kind, detail, error, meaning.

    Where `error` is true the row cannot be trained on; the others are warnings, which refuse
    nothing. `train` is a training file, without errors, that must not share a prompt with this one.
    With a `tokenizer` a row that a training with its chat template would refuse is an error, too.
    """
    # A question that was learnt measures memory, not what the model can do.
    learnt = set(map(asked, read_chats(train))) if train else set()
    found = []
    known = {}  # conversation -> its first line
    # A file without a line is told as one that holds no conversation.
    for line, raw in numbered_lines(file) or [(0, "null")]:
        kind, detail = first_fault(raw, tokenizer)
        # A line with an error is told by it alone; warnings are for rows that can be learnt from.
        if kind:
            found.append((line, kind, detail))
            continue
        chat = json.loads(raw)["messages"]
        # A conversation is the same whatever its case and spaces. A real file, of short messages
        # say, holds hundreds of them, and they are learnt as often as they stand there.
        first = known.setdefault(same(str(chat)), line)
        if first != line:
            found.append((line, "duplicate", f"= {first}"))
        if seen := re.search(KINDS["missing_value"]["says"], asked(chat)):
            found.append((line, "missing_value", seen[0]))
        if asked(chat) in learnt:
            found.append((line, "in_train", f"{train}"))
    # What each kind means, in the display language, and whether it is an error: jsonl.toml has it.
    kinds = pd.DataFrame(KINDS).T
    kinds["meaning"] = kinds[tr("id", "en")]
    found = pd.DataFrame(found, columns=["line", "kind", "detail"])
    return found.join(kinds[["error", "meaning"]], on="kind")


def numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """Lines that are not blank; they end at a line break alone, not at U+2028 in a text."""
    # Some editors begin a file with a byte order mark, which JSON does not allow. Bytes that are no
    # UTF-8 become half characters, which `first_fault` finds.
    lines = Path(path).read_text("utf-8-sig", "surrogateescape").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def once(pairs: list[tuple]) -> dict:
    """An object of JSON; ValueError where a key stands twice: Python would read the last alone."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return value


def first_fault(raw: str, tokenizer) -> tuple[str, str]:
    """Kind and detail of a line's first error, "" and "" where there is none."""
    # Text and JSON. Python's parser accepts half a character as an escape ("\\ud83d"), and NaN and
    # Infinity, which no provider takes; writing the value finds both.
    try:
        value = json.loads(raw, object_pairs_hook=once)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as problem:  # also UnicodeError
        # What a file of another kind begins with names it.
        other = re.match(TABLES["begins"], raw)
        return other.lastgroup if other else "bad_json", str(problem)
    # Shape: an object with a list of messages, each with a role, a text, perhaps a weight. No text
    # holds a control token of the course's models; another tokenizer's are found below.
    for kind, shape in SHAPES.items():
        for wrong in shape.iter_errors(value):
            return kind, f"{wrong.json_path}: {wrong.message}"[:200]
    # Order and end: what is learnt is the model's last answer.
    chat = as_asked(value["messages"])
    roles = "".join(f"{message['role']} " for message in chat)
    if not re.fullmatch("(system )?(user assistant )+", roles):
        return "role_order", roles
    if chat[-1].get("weight") == 0:
        return "nothing_learnt", "weight 0"
    if tokenizer:
        # The check of the training itself has the last word.
        try:
            check_labels(encode(chat, tokenizer), chat, tokenizer)
        except (CourseError, TemplateError) as problem:
            return "refused", str(problem)
    return "", ""


def as_asked(chat: list[dict]) -> list[dict]:
    """A conversation as a model is asked: chat templates call OpenAI's role developer system."""
    return [turn | {"role": turn["role"].replace("developer", "system")} for turn in chat]


def same(text: str) -> str:
    """The text in lower case with single spaces."""
    return " ".join(text.lower().split())


def asked(chat: list[dict]) -> str:
    """What the user says in a conversation, in lower case with single spaces."""
    return same(" ".join(turn["content"] for turn in chat if turn["role"] == "user"))


def read_chats(path: str | Path) -> list[list[dict]]:
    """The conversations of a chat JSONL file. Raises CourseError for a file with errors."""
    found = validate(path).query("error")
    if len(found):
        # One line to mend and the command that shows them all: a file may have thousands of errors.
        raise CourseError("chat_errors", path=path, n=len(found), **found.iloc[0])
    return [as_asked(json.loads(raw)["messages"]) for _, raw in numbered_lines(path)]


def write_chats(chats: list[list[dict]], path: str | Path) -> Path:
    """Write conversations as chat JSONL."""
    rows = [json.dumps({"messages": chat}, ensure_ascii=False) + "\n" for chat in chats]
    return write_text(path, "".join(rows))


# One row of a task: its conversation up to the model's turn and with its answer, that answer, and
# what an answer is judged by.
Item = namedtuple("Item", "key question chat answer facts")


def load_task(task: str, language: str) -> dict[str, list[Item]]:
    """Rows of "bank", "marv" or "sensor" by split, in the order of the file.

    `facts` of bank: query, category, subcategory; the answer is the latter two as compact JSON. Of
    marv: topic, fact. Of sensor: reading, action.
    """
    folder = ROOT / "data" / "jsonl" / task
    # Chat JSONL with more keys, which become the facts.
    rows = pd.read_json(folder / f"{language}.jsonl", lines=True).set_index("id")
    # The split of each row is written down beside the data, the same for both languages.
    sides = splits.sides_of(folder)
    parts = {name: [] for name in splits.NAMES}
    for key, row in rows.to_dict("index").items():
        chat = row.pop("messages")
        parts[sides[key]].append(Item(key, chat[:-1], chat, chat[-1]["content"], row))
    return parts
