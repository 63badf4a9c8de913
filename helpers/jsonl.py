"""Chat JSONL: one `{"messages": [{"role": ..., "content": ...}, ...]}` a line.

found = jsonl.validate("test.jsonl", train="train.jsonl")  # a table, empty where all is well
rows = jsonl.load_task("bank", "id")                       # of lessons 08 to 11, by split
jsonl.finetune("job", "train.jsonl", "validation.jsonl", cfg)
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rapidfuzz import fuzz, process

from . import splits
from .cleaning import MARKER
from .files import CourseError, write_text
from .settings import ROOT, Settings, choice
from .show import tr

KINDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
# At most one system message, then turns of user and assistant; within a turn tools may be called.
ROLES = ("system", "user", "assistant", "tool")
ORDER = re.compile(r"(system )?(user (assistant (tool )+)*assistant )+")
MISSING = re.compile(r"[:=] *(nan|none|null|undefined)\b")
NEAR = 90  # percent of rapidfuzz.fuzz.ratio from which two prompts are nearly the same
BANK_SYSTEM = {"id": "Klasifikasi.", "en": "Classify."}  # short on purpose: every row pays for it


def validate(file: str | Path, train: str | Path | None = None, tokenizer=None) -> pd.DataFrame:
    """What is wrong with a chat JSONL file: line (0: the whole file), kind, error, meaning, detail.

    Where `error` is true the row cannot be trained on; the others are warnings, which refuse
    nothing. `train` is a training file that must not share a prompt with this one. With a
    `tokenizer` a row that is longer than its model can read is an error.
    """
    # `known`: conversation -> its first line; `prompts`: line -> what the user says there.
    found, known, answers, prompts = [], {}, Counter(), {}
    for line, raw in numbered_lines(file):
        chat, kind, detail = first_fault(raw, tokenizer)
        # A conversation is the same whatever its case and spaces.
        key = tuple(map(plain, chat))
        if chat and known.setdefault(key, line) != line:
            kind, detail = "duplicate", f"the same as line {known[key]}"
        # A line with an error is told by it alone; warnings are for rows that can be learnt from.
        if kind:
            found.append((line, kind, detail))
            continue
        # Warnings: what a tokenizer reads as something else than text, and a value that is none.
        prompts[line] = prompt_of(chat)
        answers[plain(chat[-1])] += 1
        if marker := re.search(MARKER, str(chat)):
            found.append((line, "control_marker", marker[0]))
        if missing := MISSING.search(prompts[line]):
            found.append((line, "missing_value", missing[0]))
    # What only the whole file shows: that it is empty, or teaches nearly always one answer.
    if not known and not found:
        found.append((0, "no_messages", "the file holds no row"))
    for answer, times in answers.most_common(1):
        if times > max(4, len(prompts) / 2):
            found.append((0, "same_answer", f"{times} times {answer[:60]!r}"))
    # A question that was learnt measures memory, not what the model can do.
    if train:
        found += shared_prompts(prompts, Path(train))
    # What each kind means, in the display language, and whether it is an error: jsonl.toml has it.
    table = pd.DataFrame(sorted(found), columns=["line", "kind", "detail"])
    table = table.join(pd.DataFrame(KINDS).T, on="kind").astype({"error": bool})
    table["meaning"] = table[tr("id", "en")]
    return table[["line", "kind", "error", "meaning", "detail"]]


def numbered_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank; as bytes they end at \\n alone, not at U+2028 in a text."""
    with open(path, "rb") as handle:
        for line, raw in enumerate(handle, 1):
            # Some editors begin a file with a UTF-8 byte order mark, which JSON does not allow.
            raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
            if raw.strip():
                yield line, raw


def first_fault(raw: bytes, tokenizer=None) -> tuple[list[dict], str, str]:
    """A line's conversation, and kind and detail of its first error: [] and both, or "" and ""."""
    # Text and JSON. Python's parser accepts half a character as an escape ("\ud83d"); writing the
    # value as UTF-8 finds it.
    try:
        value = json.loads(raw.decode())
        json.dumps(value, ensure_ascii=False).encode()  # half a character is no text
    except UnicodeError as problem:
        return [], "bad_text", problem.reason
    except (ValueError, RecursionError) as problem:
        return [], "bad_json", str(problem)
    # Shape: an object with a list of messages, each with a role and a text.
    chat = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(chat, list) or not chat:
        return [], "no_messages", f"found {raw.decode()[:60]!r}"
    roles = ""
    for number, message in enumerate(chat, 1):
        message = message if isinstance(message, dict) else {}
        role, text = message.get("role"), message.get("content")
        if role not in ROLES:
            return [], "unknown_role", f"message {number}: {role!r}, known: {', '.join(ROLES)}"
        # A message that calls tools may have no text of its own.
        whole = isinstance(text, str) and text.strip()
        if not whole and not message.get("tool_calls"):
            return [], "no_text", f"message {number} ({role}): {text!r}"
        roles += f"{role} "
    # End and order: only the last message is learnt, so it has to be the model's. The roles are one
    # string, "system user assistant ", which one regular expression can judge.
    if role != "assistant":
        return [], "no_answer", f"the last message is by {role}"
    if not ORDER.fullmatch(roles):
        return [], "role_order", roles
    # Length: the tokens of the texts; what the template adds is not counted.
    tokens = len(tokenizer(" ".join(map(plain, chat)))["input_ids"]) if tokenizer else 0
    if tokenizer and tokens > tokenizer.model_max_length:
        return [], "too_long", f"{tokens} tokens of {tokenizer.model_max_length}"
    return chat, "", ""


def shared_prompts(prompts: dict[int, str], train: Path) -> Iterator[tuple[int, str, str]]:
    """Findings of prompts (by line) that the training file has, or nearly has.

    Only prompts with the same numbers are near each other: a reading differs by its figures.
    """
    # Grouped by their numbers, so that each prompt is compared with a few and not with all.
    known: dict[tuple, dict[str, int]] = {}  # numbers -> prompt -> line
    for line, raw in numbered_lines(train):
        text = prompt_of(first_fault(raw)[0])
        known.setdefault(tuple(re.findall(r"\d+", text)), {}).setdefault(text, line)
    for line, text in prompts.items():
        # The nearest of those with the same numbers; a copy has 100 percent.
        alike = known.get(tuple(re.findall(r"\d+", text)), {})
        near = process.extractOne(text, list(alike), scorer=fuzz.ratio, score_cutoff=NEAR)
        if near:
            kind = "in_train" if text in alike else "near_train"
            yield line, kind, f"{near[1]:.0f} % line {alike[near[0]]} of {train.name}"


def plain(message: dict) -> str:
    """A message's text in lower case, with single spaces."""
    return " ".join(str(message.get("content")).lower().split())


def prompt_of(chat: list[dict]) -> str:
    """All that the user says in a conversation."""
    return "\n".join(plain(message) for message in chat if message["role"] == "user")


def read_chats(path: str | Path) -> list[list[dict]]:
    """The conversations of a chat JSONL file. Raises CourseError for a file with errors."""
    found = validate(path)
    if found["error"].any():
        # One line to mend and the command that shows them all: a file may have thousands of errors.
        first = found[found["error"]].iloc[0]
        raise CourseError(
            f"{Path(path).name}, line {first['line']}: {first['meaning']} (errors: "
            f"{found['error'].sum()}). See python -m helpers data validate-jsonl {path}"
        )
    return [json.loads(raw)["messages"] for _, raw in numbered_lines(path)]


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
            chat = [
                {"role": "system", "content": BANK_SYSTEM[language]},
                {"role": "user", "content": row["query"]},
                {"role": "assistant", "content": json.dumps(label, separators=(",", ":"))},
            ]
            parts[sides[key]].append(Item(key, chat, row))
    else:
        # The other two are chat JSONL with more keys, which become the facts.
        for _, raw in numbered_lines(folder / f"{language}.jsonl"):
            row = json.loads(raw)
            key, chat = row.pop("id"), row.pop("messages")
            parts[sides[key]].append(Item(key, chat, row))
    return parts


def finetune(folder: Path, train_file: Path, validation_file: Path, cfg: Settings, fresh=False):
    """Train on a chat JSONL file; the adapter stands in `folder`/adapter. Returns its summary.

    The same rows, settings and model are trained once: a finished training is used again, one that
    was interrupted goes on from its last checkpoint, unless `fresh`. It trains for as long as was
    asked, without early stopping, and in random order: sorted by length, where length goes with
    the label, the last steps see one label only, and the sensor task fell from 64 to 19 %.

    Raises CourseError for a file with errors and for a folder with other files in it.
    """
    from . import models, training

    # A folder that somebody else filled is left alone: only our own two, known by a file in each,
    # may stand there.
    folder = Path(folder)
    adapter, output = folder / "adapter", folder / "checkpoints"
    ours = {adapter: "training.json", output: "fingerprint.txt"}
    for path in folder.glob("*"):
        if not (path / ours.get(path, "nothing of ours")).is_file():
            raise CourseError(f"{folder} holds other files. Name a new folder for this training.")
    # The rows of both files, as token ids and labels; what is longer than max_length is left out.
    tokenizer, rows = models.load_tokenizer(cfg), []
    for file in (train_file, validation_file):
        rows.append(training.ChatDataset(read_chats(file), tokenizer, cfg.max_length))
        assert len(rows[-1]), f"no row of {file} fits max_length={cfg.max_length}"
    # The same training is not repeated: its fingerprint is made of rows, settings and versions.
    mark = training.fingerprint(cfg, *rows)
    done = None if fresh else training.finished(adapter, mark)
    if not done:
        # The steps of lesson 03: base model, adapter, arguments, Trainer.
        model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
        args = training.arguments(cfg, len(rows[0]), output)
        # The last step counts, not the best one; make_trainer then adds no early stopping.
        args.load_best_model_at_end = False
        trainer = training.make_trainer(model, cfg, *rows, tokenizer, args, folder.name)
        done = training.run(trainer, mark, fresh)
        # Tokens of one epoch times the epochs; the last one may be a part.
        done["trained_tokens"] = round(rows[0].tokens * trainer.state.epoch)
        training.save(adapter, trainer, tokenizer, cfg, done)
    return done
