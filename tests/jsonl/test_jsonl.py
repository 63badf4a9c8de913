"""Chat JSONL: what the validator finds, the three tasks, and a training from a file."""

import copy
import json
import tomllib
from pathlib import Path

import pytest

from helpers import jsonl, training
from helpers.files import CourseError, LabelMaskError

ASK = ("What do bees make?", "How many legs has a spider?", "Who painted the Mona Lisa?")
TELL = ("Honey.", "Eight.", "Leonardo da Vinci.")
SYSTEM = {"role": "system", "content": "You answer questions."}
CASES = tomllib.loads(Path(__file__).with_name("rows.toml").read_text(encoding="utf-8"))


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def line(*messages):
    return json.dumps({"messages": messages}, ensure_ascii=False).encode()


def cases(part):
    """Each row of a part of rows.toml, with what is found in it."""
    found = []
    for kind, rows in CASES[part].items():
        found += [(row.encode(), kind) for row in rows]
    return found


GOOD = [line(user(ask), assistant(tell)) for ask, tell in zip(ASK, TELL)]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "chat.jsonl"


@pytest.fixture
def found(file):
    """(line, kind) of what is found in lines of bytes."""

    def find(*lines, **options):
        file.write_bytes(b"\n".join(lines))
        table = jsonl.validate(file, **options)
        return list(zip(table["line"], table["kind"]))

    return find


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        *cases("wrong"),
        (b"[" * 100_000 + b"]" * 100_000, "bad_json"),
        (b'{"messages": "\xff"}', "bad_json"),  # no UTF-8
        (b'{"messages": "\\ud83d"}', "bad_json"),  # half a character
    ],
)
def test_each_error_is_named_with_its_line_and_refuses_the_file(found, file, row, kind):
    assert found(GOOD[0], row, GOOD[1]) == [(2, kind)]
    with pytest.raises(CourseError, match=r"chat\.jsonl, baris 2: .*kesalahan: 1\)"):
        jsonl.read_chats(file)


@pytest.mark.parametrize(
    "chat",
    [
        [SYSTEM, user(ASK[0]), assistant(TELL[0]), user(ASK[1]), assistant(TELL[1])],
        [user("One\u2028two\u0085three"), assistant("Kopi é 🍜.")],
        # Hugging Face writes every key into every message.
        [user("When?") | {"weight": None, "tool_calls": None}, assistant("At 8.", weight=1.0)],
    ],
)
def test_a_good_row_is_read_as_it_is_and_written_so(found, file, tmp_path, chat):
    assert found(line(*chat)) == []
    assert jsonl.read_chats(file) == [chat]
    written = jsonl.write_chats([chat], tmp_path / "new" / "rows.jsonl")
    assert written.read_bytes() == line(*chat) + b"\n"


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_do_no_harm(found, file):
    assert found(b"\xef\xbb\xbf" + GOOD[0] + b"\r", b"", b"\r", GOOD[1] + b"\r") == []
    assert len(jsonl.read_chats(file)) == 2


@pytest.mark.parametrize(("row", "kind"), cases("warned"))
def test_what_may_be_meant_that_way_is_told_and_read(found, file, row, kind):
    assert found(*GOOD, row) == [(4, kind)]
    assert len(jsonl.read_chats(file)) == 4


@pytest.mark.parametrize(
    "form",
    [b"question,answer", b"[\n{}\n]", b'{"instruction": "Add"}', GOOD[0].decode().encode("utf-16")],
)
def test_a_file_in_another_form_is_refused(found, form):
    number, kind = found(form)[0]
    assert number == 1
    assert jsonl.KINDS[kind]["error"]


def test_a_file_without_a_line_holds_no_conversation(found):
    assert found(b"") == [(0, "no_messages")]


def test_what_is_in_the_training_file_is_an_error(found, tmp_path):
    train = tmp_path / "train.jsonl"
    train.write_bytes(GOOD[0])
    same = line(user(ASK[0].upper()), assistant("Wax."))
    assert found(same, GOOD[1], train=train) == [(1, "in_train")]


def test_a_training_file_that_cannot_be_read_does_not_pass_for_one_without_copies(found, tmp_path):
    train = tmp_path / "train.jsonl"
    train.write_bytes(b"[" + GOOD[0] + b"]")
    with pytest.raises(CourseError, match=r"train\.jsonl, baris 1: .*kesalahan: 1\)"):
        found(*GOOD, train=train)


def test_with_a_tokenizer_a_row_that_its_training_refuses_is_an_error(found, tokenizer):
    assert found(*GOOD, tokenizer=tokenizer) == []
    endless = copy.deepcopy(tokenizer)
    endless.pad_token = endless.eos_token
    assert found(*GOOD, tokenizer=endless) == [(1, "refused"), (2, "refused"), (3, "refused")]


@pytest.mark.parametrize(
    ("task", "group"), [("bank", "subcategory"), ("marv", "topic"), ("sensor", "action")]
)
def test_each_group_of_a_task_is_tested(task, group):
    rows = jsonl.load_task(task, "id")
    groups = {part: {item.facts[group] for item in items} for part, items in rows.items()}
    assert groups["test"] == groups["train"] | groups["validation"]


def test_an_answer_with_weight_0_is_read_and_not_learnt(found, file, tokenizer):
    bad = assistant("Go.", weight=0)
    turns = [user("Hi"), bad, user("Hi?"), assistant("Hi!")]
    developer = SYSTEM | {"role": "developer"}
    assert found(line(developer, *turns), tokenizer=tokenizer) == []
    chats = jsonl.read_chats(file)
    assert chats == [[SYSTEM, *turns]]  # as a model is asked
    (row,) = training.ChatDataset(chats, tokenizer, 512)
    learnt = [label for label in row["labels"] if label >= 0]
    assert tokenizer.decode(learnt, skip_special_tokens=True) == "Hi!"


def test_a_training_refuses_calls_that_its_template_leaves_out(tokenizer):
    """What the validator refuses, in rows that never were in a file."""
    call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
    chat = [user("The weather?"), assistant("", tool_calls=[call]), assistant("31 degrees.")]
    with pytest.raises(LabelMaskError, match="melewatkan panggilan alat"):
        training.ChatDataset([chat], tokenizer, 200)
