"""Chat JSONL: what the validator finds, the three tasks, and a training from a file."""

import copy
import json
import time
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from peft import LoraConfig

from helpers import jsonl, show, training
from helpers.files import CourseError, LabelMaskError, UsageError
from helpers.settings import LANGUAGES

GROUP = {"bank": "subcategory", "marv": "topic", "sensor": "action"}
ASK = ("What do bees make?", "How many legs has a spider?", "Who painted the Mona Lisa?")
TELL = ("Honey.", "Eight.", "Leonardo da Vinci.")
SYSTEM = {"role": "system", "content": "You answer questions."}
ROWS = tomllib.loads(Path(__file__).with_name("rows.toml").read_text(encoding="utf-8"))


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(key="1", arguments='{"city": "Solo"}'):
    return {"id": key, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def calls(*made, text=None):
    return assistant(text, tool_calls=list(made))


def tool(key="1", text="31"):
    return {"role": "tool", "tool_call_id": key, "content": text}


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


def rows_of(part):
    return [(raw.encode(), kind) for kind, rows in ROWS[part].items() for raw in rows]


@pytest.mark.parametrize(
    "raw, kind",
    [
        *rows_of("wrong"),
        *[(b"[" * deep + b"]" * deep, "bad_json") for deep in (500, 100_000)],
        (b'{"messages": "\xff"}', "bad_text"),
        (json.dumps({"messages": [user("a \ud83d"), assistant("b")]}).encode(), "bad_text"),
        (line(user("Hi"), assistant("Hi.")).decode().encode("utf-16-le"), "utf16"),
        (line(user("Hi"), calls(call("1", "[" * 100_000)), tool(), assistant("31")), "tool_calls"),
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
        [SYSTEM | {"role": "developer"}, user("Allergies: eggs."), assistant("No eggs.")],
        [user("Who?"), assistant("I.", weight=0), user("Who?"), assistant("Marv.", weight=1)],
        # Hugging Face writes every key into every message.
        [user("When?") | {"weight": None, "tool_calls": None}, assistant("At 8.", weight=1.0)],
    ]
    rows = [line(*chat) + b"\r" for chat in chats]
    assert found(rows[0], b"", b"\r", *rows[1:]) == []
    assert found(b"\xef\xbb\xbf" + rows[0], *rows[1:]) == [(0, "bom")]  # told, and read
    chats[3][0] = SYSTEM  # as a model is asked
    assert jsonl.read_chats(tmp_path / "chat.jsonl") == chats
    path = jsonl.write_chats(chats, tmp_path / "new" / "rows.jsonl")
    assert jsonl.read_chats(path) == chats and "🍜" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("raw, kind", rows_of("warned"))
def test_what_may_be_meant_that_way_is_told_and_read(found, tmp_path, tokenizer, raw, kind):
    good = [line(user(ask), assistant(tell)) for ask, tell in zip(ASK, TELL)]
    assert found(*good, raw) == found(*good, raw, tokenizer=tokenizer) == [(4, kind)]
    assert len(jsonl.read_chats(tmp_path / "chat.jsonl", tokenizer)) == 4


def test_a_warning_refuses_nothing(found, tmp_path):
    asked = ("a = nan, a + 1?", "Allergies: None.", "x = None\nprint(x)")
    rows = [line(user(ask), assistant(ask)) for ask in asked]
    assert found(*rows) == [(number, "missing_value") for number in (1, 2, 3)]
    same = [line(user(f"Is {n} a number?"), assistant("Yes.")) for n in range(5)]
    assert found(*same) == [(0, "same_answer")] and found(*same[:4]) == []
    (tmp_path / "chat.jsonl").write_bytes(b"\n".join(same))
    (told,) = jsonl.validate(tmp_path / "chat.jsonl")["detail"]
    assert told == "5 times 'yes.': lines 1, 2, 3, 4, 5"
    assert found(*same[:4]) == []
    assert len(jsonl.read_chats(tmp_path / "chat.jsonl")) == 4


def test_right_calls_of_tools_are_told_apart_by_what_they_ask(found):
    def chat(city, text):
        asked = calls(call(arguments=json.dumps({"city": city})), call("2", "{}"), text=text)
        return line(user("How hot?"), asked, tool("2", ""), tool(), assistant("31"))

    rows = [chat("Solo", None), chat("Bogor", ""), chat("Medan", "Let me see.")]
    assert found(*rows) == []
    assert found(*rows, rows[0]) == [(4, "duplicate")]


WANTED = json.dumps([SYSTEM, user("Add\n\n1 + 1"), assistant("2")])
SHAPES = {
    "": lambda rows: "\r\n".join(map(json.dumps, rows)),
    "json_array": json.dumps,
    "json_array, a comma more": lambda rows: json.dumps(rows)[:-1] + ",\n]\n",
    "json_array, a row a line": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]",
    "many_lines": lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows),
    "many_lines, in places": lambda rows: "\n".join(map(json.dumps, rows)).replace("[{", "[\n{"),
}


# Every form in every shape; and every shape in the other encodings, of one form.
OTHERS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32-be")
IN_ANOTHER_FORM = [(form, shape, "utf-8") for form in ROWS["form"] for shape in SHAPES]
IN_ANOTHER_FORM += [(ROWS["form"][1], shape, encoding) for shape in SHAPES for encoding in OTHERS]


@pytest.mark.parametrize("form, shape, encoding", IN_ANOTHER_FORM)
def test_a_file_in_another_form_is_named_and_its_cure_runs(form, shape, encoding, tmp_path):
    """Each cure leads one step on, until there is the chat JSONL that was meant."""
    path, told = tmp_path / "it's.jsonl", []
    row, kind = json.loads(form["row"]), form["kind"] or shape.partition(",")[0]
    rows = [row, json.loads(json.dumps(row).replace("1 + 1", "3 + 3"))]
    path.write_bytes(SHAPES[shape](rows).encode(encoding))
    while (found := jsonl.validate(path))["detail"].str.startswith("Python: ").any():
        told.append(found["kind"][0])
        cure = found["detail"][0].removeprefix("Python: ")
        assert len(found) == len(cure.splitlines()) == 1 and "'" not in cure
        exec(cure, {})
        path = path.with_name(f"{path.stem}_chat.jsonl")
    first = {"utf-8": [], "utf-8-sig": [] if kind else ["bom"]}.get(encoding, ["utf16"])
    assert told == first + [kind] * bool(kind)
    assert jsonl.read_chats(path)[0] == json.loads(form.get("wanted", WANTED))


def test_what_is_in_the_training_file_is_an_error(found, tmp_path):
    known = [line(user(ask), assistant("?")) for ask in ASK]
    (tmp_path / "train.jsonl").write_bytes(b"\n".join([*known, b"nothing"]))
    asked = (ASK[0].upper(), ASK[2] + "!", "What?")
    rows = [line(user(ask), assistant(tell)) for ask, tell in zip(asked, TELL)]
    assert found(*rows, train=tmp_path / "train.jsonl") == [(1, "in_train")]
    (tmp_path / "train.jsonl").write_bytes(b"[" + known[0] + b"]")
    assert found(*rows, train=tmp_path / "train.jsonl") == [(0, "json_array")]


def test_with_a_tokenizer_a_row_must_fit_its_model(found, tokenizer):
    class Short:
        model_max_length = 5

        def __call__(self, text):
            return {"input_ids": text.split()}

    rows = [line(user(ask), assistant(tell)) for ask, tell in zip(ASK, TELL)]
    assert found(*rows, tokenizer=Short()) == [(2, "too_long"), (3, "too_long")]
    assert found(*rows, tokenizer=tokenizer) == []


def test_an_empty_file_and_the_meanings(found, tmp_path):
    assert found(b"\xef\xbb\xbf\n")[1:] == found(b" ") == [(0, "no_messages")]
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
    with pytest.raises(UsageError, match="unknown task 'bnk'.*bank"):
        jsonl.load_task("bnk", language)


@pytest.fixture(scope="module")
def own(cfg):
    return replace(cfg, epochs=1, batch=4, accumulation=1, max_steps=8, warmup_steps=1)


def test_a_training_with_other_settings_has_another_key(own, tokenizer):
    """What lesson 08, with its layers, tells one training from another by."""
    rows = training.ChatDataset([[user("Hi"), assistant("Hi.")]], tokenizer, 99)
    other = training.ChatDataset([[user("Hi"), assistant("Ho.")]], tokenizer, 99)
    changes = ({"quantization": "none"}, {"max_length": 99}, {"targets": ["q_proj"]}, {"rank": 2})
    changes = [{}, *changes, {"alpha": 3}, {"seed": 7}, {"epochs": 2.0}, {"base_model": "packaged"}]
    marks = [training.fingerprint(replace(own, **change), rows, rows) for change in changes]
    marks += [training.fingerprint(own, *pair) for pair in ((rows, other), (other, rows))]
    for layers in ([0], [1]):
        lora = LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=layers)
        marks.append(training.fingerprint(own, rows, rows, lora))
    assert len(set(marks)) == len(marks) == 13


@pytest.mark.parametrize("row", ROWS["weight"])
def test_an_answer_with_weight_0_is_read_and_not_learnt(row, tokenizer, tmp_path):
    chat = json.loads(row["chat"])
    file = jsonl.write_chats([chat], tmp_path / "rows.jsonl")
    assert jsonl.validate(file, tokenizer=tokenizer).empty
    parts = [part for one in jsonl.read_chats(file) for part in jsonl.rows_to_learn(one)]
    made = training.ChatDataset(parts, tokenizer, 512)
    rows = [made[number] for number in range(len(made))]
    labels = [[label for label in made["labels"] if label >= 0] for made in rows]
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in labels] == row["learnt"]
    whole = tokenizer.decode(rows[-1]["input_ids"])
    assert ("Go away." in whole) == ("Go away." in str(chat[:-1])) and "developer" not in whole
    assert ("system" in whole) == (chat[0]["role"] == "developer")


def test_a_training_refuses_weight_0_and_calls_that_its_template_leaves_out(found, tokenizer):
    with pytest.raises(LabelMaskError, match="weight 0"):
        training.ChatDataset([[user("Hi"), assistant("Go.", weight=0)]], tokenizer, 99)
    chat = [user("The weather?"), calls(call()), tool(), assistant("31 degrees.")]
    assert found(line(*chat), tokenizer=tokenizer) == [(1, "refused")]
    (row,) = jsonl.rows_to_learn(chat)
    with pytest.raises(LabelMaskError, match="leaves out calls of tools"):
        training.ChatDataset([row], tokenizer, 200)
    own = copy.deepcopy(tokenizer)
    asked = "(m.tool_calls | default([]) | map(attribute='function') | list | tojson)"
    own.chat_template = own.chat_template.replace("m['content']", f"m['content'] + {asked}")
    ids = training.ChatDataset([row], own, 200)[0]["input_ids"]
    assert '"arguments": {"city": "Solo"}' in own.decode(ids)  # not quoted twice
    assert found(line(*chat), tokenizer=own) == []
