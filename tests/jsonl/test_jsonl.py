"""Chat JSONL: what the validator finds, the three tasks, and a training from a file."""

import json
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from helpers import jsonl, show
from helpers.files import CourseError, UsageError
from helpers.settings import LANGUAGES

GROUP = {"bank": "subcategory", "marv": "topic", "sensor": "action"}
ASK = ("What do bees make?", "How many legs has a spider?", "Who painted the Mona Lisa?")
TELL = ("Honey.", "Eight.", "Leonardo da Vinci.")
SYSTEM = {"role": "system", "content": "You answer questions."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def line(*messages):
    return json.dumps({"messages": messages}, ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.fixture
def found(tmp_path):
    """(line, kind) of what is found in lines of bytes."""

    def find(*lines, **options):
        path = tmp_path / "chat.jsonl"
        path.write_bytes(b"\n".join(lines))
        table = jsonl.validate(path, **options)
        assert set(table["kind"]) <= set(jsonl.KINDS) and table["detail"].astype(bool).all()
        return list(zip(table["line"], table["kind"]))

    return find


@pytest.mark.parametrize(
    "raw, kind",
    [
        (b'{"messages": [', "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b'{"messages": "\xff"}', "bad_text"),
        (json.dumps({"messages": [user("a \ud83d"), assistant("b")]}).encode(), "bad_text"),
        (b"[1, 2]", "no_messages"),
        (b"null", "no_messages"),
        (b'{"prompt": "a", "completion": "b"}', "no_messages"),
        (b'{"messages": []}', "no_messages"),
        (line("hello"), "unknown_role"),
        (line({"content": "a"}), "unknown_role"),
        (line(user("Hi"), {"role": "bot", "content": "Hi."}), "unknown_role"),
        (line(user("Hi"), assistant(["a"])), "no_text"),
        (line(user("Hi"), assistant(" \n")), "no_text"),
        (line(user(""), assistant("Hi.")), "no_text"),
        (line(SYSTEM, user("Hi")), "no_answer"),
        (line(SYSTEM), "no_answer"),
        (line(user("Hi"), SYSTEM, assistant("Hi.")), "role_order"),
        (line(SYSTEM, assistant("Hi.")), "role_order"),
        (line(user("Hi"), user("Hi?"), assistant("Hi.")), "role_order"),
        (line(user("Hi"), assistant("Hi."), assistant("Ho.")), "role_order"),
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
        [user("None of these is right, is it?"), assistant("None of these is right, is it?")],
        [user("And?"), CALL, {"role": "tool", "content": "42"}, assistant("It is 42.")],
    ]
    rows = [line(*chat) + b"\r" for chat in chats]
    assert found(b"\xef\xbb\xbf" + rows[0], b"", b"\r", *rows[1:]) == []
    assert jsonl.read_chats(tmp_path / "chat.jsonl") == chats
    path = jsonl.write_chats(chats, tmp_path / "new" / "rows.jsonl")
    assert jsonl.read_chats(path) == chats and "🍜" in path.read_text(encoding="utf-8")


def test_a_warning_refuses_nothing(found, tmp_path):
    rows = [line(user("a = nan, a + 1?"), assistant("1<|im_end|>"))]
    assert found(*rows) == [(1, "control_marker"), (1, "missing_value")]
    same = [line(user(f"Is {n} a number?"), assistant("Yes.")) for n in range(5)]
    assert found(*same) == [(0, "same_answer")] and found(*same[:4]) == []
    assert len(jsonl.read_chats(tmp_path / "chat.jsonl")) == 4


def test_a_conversation_that_stands_twice_is_an_error_whatever_its_case(found):
    rows = [line(user(ASK[0]), assistant(tell)) for tell in TELL]
    again = line(user(ASK[0].upper() + " "), assistant(TELL[0]))
    assert found(*rows, again) == [(4, "duplicate")]


def test_what_is_in_the_training_file_is_an_error_and_what_is_nearly_a_warning(found, tmp_path):
    known = [line(user(ask), assistant("?")) for ask in (*ASK, "At 21 degrees, 4 people.")]
    (tmp_path / "train.jsonl").write_bytes(b"\n".join([*known, b"nothing"]))
    asked = (ASK[0].upper(), ASK[2] + "!", "At 22 degrees, 4 people.")
    rows = [line(user(ask), assistant(tell)) for ask, tell in zip(asked, TELL)]
    assert found(*rows, train=tmp_path / "train.jsonl") == [(1, "in_train"), (2, "near_train")]


def test_with_a_tokenizer_a_row_must_fit_its_model(found, tokenizer):
    class Short:
        model_max_length = 5

        def __call__(self, text):
            return {"input_ids": text.split()}

    rows = [line(user(ask), assistant(tell)) for ask, tell in zip(ASK, TELL)]
    assert found(*rows, tokenizer=Short()) == [(2, "too_long"), (3, "too_long")]
    assert found(*rows, tokenizer=tokenizer) == []


def test_an_empty_file_and_the_meanings(found, tmp_path):
    assert found(b" ") == [(0, "no_messages")]
    for language in LANGUAGES:
        show.set_language(language)
        (told,) = jsonl.validate(tmp_path / "chat.jsonl")["meaning"]
        assert told == jsonl.KINDS["no_messages"][language]
    assert all(texts["id"] != texts["en"] for texts in jsonl.KINDS.values())


@pytest.mark.parametrize("text", ["9" * 200_000, ": " * 99_000, "<|" * 99_000, "an " * 66_000])
def test_time_grows_with_the_length_and_not_with_its_square(found, tmp_path, text):
    row = line(user(text), assistant(text + "."))
    (tmp_path / "train.jsonl").write_bytes(row)
    start = time.process_time()
    assert (1, "in_train") in found(row, train=tmp_path / "train.jsonl")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", GROUP)
def test_no_split_of_a_task_leaks_and_each_group_is_tested(task, language, tmp_path):
    rows = jsonl.load_task(task, language)
    paths = {}
    for split, items in rows.items():
        paths[split] = jsonl.write_chats([i.chat for i in items], tmp_path / f"{split}.jsonl")
    for split, against in (("test", "train"), ("test", "validation"), ("validation", "train")):
        assert jsonl.validate(paths[split], paths[against]).empty, (split, against)
    groups = Counter(item.facts[GROUP[task]] for item in rows["test"])
    assert set(groups) == {i.facts[GROUP[task]] for items in rows.values() for i in items}
    assert max(groups.values()) - min(groups.values()) <= 3
    with pytest.raises(UsageError, match="unknown task 'bnk'.*Did you mean 'bank'"):
        jsonl.load_task("bnk", language)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("files"), jsonl.load_task("bank", "id")
    chats = {part: [i.chat for i in rows[part]] for part in ("train", "validation")}
    return [
        jsonl.write_chats(chats["train"][:24], folder / "train.jsonl"),
        jsonl.write_chats(chats["validation"][:6], folder / "validation.jsonl"),
    ]


@pytest.fixture(scope="module")
def own(cfg):
    return replace(cfg, epochs=1, batch=4, accumulation=1, max_steps=8, warmup_steps=1)


def weights(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_training_runs_once_and_anew_where_the_rows_or_fresh_say_so(files, own, tmp_path):
    done = jsonl.finetune(tmp_path / "job", *files, own)
    assert done["steps"] == 8 and done["trained_tokens"] > 0
    first = weights(tmp_path / "job")
    stamp = (tmp_path / "job" / "adapter").stat().st_mtime_ns
    assert jsonl.finetune(tmp_path / "job", *files, own) == jsonl.finetune(
        tmp_path / "job", *files, own
    )
    assert (tmp_path / "job" / "adapter").stat().st_mtime_ns == stamp
    jsonl.finetune(tmp_path / "job", *files, own, fresh=True)
    again = weights(tmp_path / "job")  # the same training gives the same weights
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    fewer = jsonl.write_chats(jsonl.read_chats(files[0])[:12], tmp_path / "fewer.jsonl")
    jsonl.finetune(tmp_path / "job", fewer, files[1], own)
    other = weights(tmp_path / "job")
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_a_folder_with_other_files_and_a_file_with_errors_are_left_alone(files, own, tmp_path):
    for name in ("thesis.doc", "adapter/notes.txt", "checkpoints/checkpoint-9/mine"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
        with pytest.raises(CourseError, match="holds other files"):
            jsonl.finetune(folder, *files, own, fresh=True)
        assert (folder / name).read_text() == "mine"
    bad = tmp_path / "bad.jsonl"
    bad.write_text(files[0].read_text() + "{]\n")
    with pytest.raises(CourseError, match="bad.jsonl, line 25"):
        jsonl.finetune(tmp_path / "new", bad, files[1], own)
    assert not (tmp_path / "new").exists()
