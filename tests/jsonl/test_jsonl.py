"""Chat JSONL: what the validator finds, the three tasks, and a training from a file."""

import copy
import json
import tomllib
from pathlib import Path

import pytest

from helpers import jsonl, show, training
from helpers.files import CourseError, LabelMaskError
from helpers.settings import LANGUAGES

GROUPS = [("bank", "subcategory"), ("marv", "topic"), ("sensor", "action")]
ASK = ("What do bees make?", "How many legs has a spider?", "Who painted the Mona Lisa?")
TELL = ("Honey.", "Eight.", "Leonardo da Vinci.")
SYSTEM = {"role": "system", "content": "You answer questions."}
ROWS = tomllib.loads(Path(__file__).with_name("rows.toml").read_text(encoding="utf-8"))


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def line(*messages):
    return json.dumps({"messages": messages}, ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.fixture
def found(tmp_path):
    """(line, kind) of what is found in lines of bytes."""

    def find(*lines, **options):
        path = tmp_path / "chat.jsonl"
        path.write_bytes(b"\n".join(lines))
        table = jsonl.validate(path, **options)
        return list(zip(table["line"], table["kind"]))

    return find


def rows_of(part):
    return [(raw.encode(), kind) for kind, rows in ROWS[part].items() for raw in rows]


@pytest.mark.parametrize(
    "raw, kind",
    [
        *rows_of("wrong"),
        (b"[" * 100_000 + b"]" * 100_000, "bad_json"),
        (b'{"messages": "\xff"}', "bad_json"),
        (json.dumps({"messages": [user("a \ud83d"), assistant("b")]}).encode(), "bad_json"),
    ],
)
def test_each_error_is_named_with_its_line_and_refuses_the_file(found, tmp_path, raw, kind):
    good = [line(user(ask), assistant(tell)) for ask, tell in zip(ASK, TELL)]
    assert found(good[0], raw, good[1]) == [(2, kind)]
    with pytest.raises(CourseError, match=r"chat\.jsonl, line 2: .*errors: 1\)"):
        jsonl.read_chats(tmp_path / "chat.jsonl")


def test_good_files_are_read_as_they_are(found, tmp_path):
    chats = [
        [SYSTEM, user(ASK[0]), assistant(TELL[0]), user(ASK[1]), assistant(TELL[1])],
        [user("One\u2028two\u0085three"), assistant("Kopi é 🍜.")],
        [SYSTEM | {"role": "developer"}, user("Allergies: eggs."), assistant("No eggs.")],
        [user("Who?"), assistant("I.", weight=0), user("Who?"), assistant("Marv.", weight=1)],
        # Hugging Face writes every key into every message.
        [user("When?") | {"weight": None, "tool_calls": None}, assistant("At 8.", weight=1.0)],
    ]
    rows = [line(*chat) + b"\r" for chat in chats]
    assert found(rows[0], b"", b"\r", *rows[1:]) == []
    assert found(b"\xef\xbb\xbf" + rows[0], *rows[1:]) == []
    chats[2][0] = SYSTEM  # as a model is asked
    assert jsonl.read_chats(tmp_path / "chat.jsonl") == chats
    path = jsonl.write_chats(chats, tmp_path / "new" / "rows.jsonl")
    assert jsonl.read_chats(path) == chats and "🍜" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("raw, kind", rows_of("warned"))
def test_what_may_be_meant_that_way_is_told_and_read(found, tmp_path, tokenizer, raw, kind):
    good = [line(user(ask), assistant(tell)) for ask, tell in zip(ASK, TELL)]
    assert found(*good, raw) == found(*good, raw, tokenizer=tokenizer) == [(4, kind)]
    assert len(jsonl.read_chats(tmp_path / "chat.jsonl")) == 4


@pytest.mark.parametrize(
    "form", ["", "question,answer", "[\n{}\n]", "{\n}", '{"instruction": "Add"}']
)
def test_a_file_in_another_form_is_refused(found, form):
    good = line(user("Hi"), assistant("Hi.")).decode()
    assert jsonl.KINDS[found(form.encode())[0][1]]["error"]
    assert found(good.encode("utf-16"))[0] == (1, "bad_json")


def test_what_is_found_is_told_in_the_display_language(found, tmp_path):
    assert found(b"") == [(0, "no_messages")]
    for language in LANGUAGES:
        show.set_language(language)
        (told,) = jsonl.validate(tmp_path / "chat.jsonl")["meaning"]
        assert told == jsonl.KINDS["no_messages"][language]


def test_what_is_in_the_training_file_is_an_error(found, tmp_path):
    known = [line(user(ask), assistant("?")) for ask in ASK]
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(known))
    asked = (ASK[0].upper(), ASK[2] + "!", "What?")
    rows = [line(user(ask), assistant(tell)) for ask, tell in zip(asked, TELL)]
    assert found(*rows, train=tmp_path / "train.jsonl") == [(1, "in_train")]
    # one that cannot be read must not pass for one without copies
    (tmp_path / "train.jsonl").write_bytes(b"[" + known[0] + b"]")
    with pytest.raises(CourseError, match=r"train\.jsonl, line 1: .*errors: 1\)"):
        found(*rows, train=tmp_path / "train.jsonl")


def test_with_a_tokenizer_a_row_that_its_training_refuses_is_an_error(found, tokenizer):
    rows = [line(user(ask), assistant(tell)) for ask, tell in zip(ASK, TELL)]
    assert found(*rows, tokenizer=tokenizer) == []
    endless = copy.deepcopy(tokenizer)
    endless.pad_token = endless.eos_token
    assert found(*rows, tokenizer=endless) == [(number, "refused") for number in (1, 2, 3)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task, group", GROUPS)
def test_each_group_of_a_task_is_tested_and_no_question_twice(task, group, language):
    rows = jsonl.load_task(task, language)
    groups = {part: {item.facts[group] for item in items} for part, items in rows.items()}
    assert groups["test"] == groups["train"] | groups["validation"]
    asked = [str(item.question).lower() for items in rows.values() for item in items]
    assert len(set(asked)) == len(asked)


def test_an_answer_with_weight_0_is_read_and_not_learnt(found, tokenizer, tmp_path):
    asked, bad = [SYSTEM | {"role": "developer"}, user("Hi")], assistant("Go.", weight=0)
    chat = [*asked, bad, user("Hi?"), assistant("Hi!")]
    assert found(line(*chat), tokenizer=tokenizer) == []
    chats = jsonl.read_chats(tmp_path / "chat.jsonl")
    assert chats == [[SYSTEM, *chat[1:]]]
    (row,) = training.ChatDataset(chats, tokenizer, 512)
    learnt = [label for label in row["labels"] if label >= 0]
    assert tokenizer.decode(learnt, skip_special_tokens=True) == "Hi!"


def test_a_training_refuses_weight_0_and_calls_that_its_template_leaves_out(tokenizer):
    """What the validator refuses, in rows that never were in a file."""
    with pytest.raises(LabelMaskError, match="weight 0"):
        training.ChatDataset([[user("Hi"), assistant("Go.", weight=0)]], tokenizer, 99)
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {}}}
    tool = {"role": "tool", "tool_call_id": "1", "content": "31"}
    chat = [user("The weather?"), assistant("", tool_calls=[call]), tool, assistant("31 degrees.")]
    with pytest.raises(LabelMaskError, match="leaves out calls of tools"):
        training.ChatDataset([chat], tokenizer, 200)
