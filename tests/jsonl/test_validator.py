"""The validator of chat JSONL: each kind of defect alone, good files, the command line."""

import copy
import dataclasses
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from helpers import cli_main, jsonl
from helpers.files import CourseError

ASK = (
    "What is the largest ocean on Earth?",
    "Who painted the Mona Lisa?",
    "How many legs has a spider?",
    "What is the boiling point of water?",
    "Which planet is closest to the sun?",
    "What do bees make?",
)
TELL = ("The Pacific.", "Leonardo da Vinci.", "Eight.", "100 degrees.", "Mercury.", "Honey.")


def chat(user=ASK[0], assistant=TELL[0], system="You answer questions."):
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": assistant},
    ]


def row(messages) -> str:
    return json.dumps({"messages": messages}, ensure_ascii=False)


@pytest.fixture
def check(tmp_path):
    def check_lines(*lines, **options):
        path = tmp_path / "chat.jsonl"
        raw = (line if isinstance(line, bytes) else line.encode() for line in lines)
        path.write_bytes(b"\n".join(raw))
        report = jsonl.validate(path, **options)
        assert all(p.kind in jsonl.KINDS and p.detail for p in report.problems)
        assert json.loads(json.dumps(report.as_dict()))["kinds"] == report.kinds
        return report

    return check_lines


def found(report) -> list[tuple[int, str]]:
    return [(p.line, p.kind) for p in report.problems]


def test_good_rows_have_no_problem(check):
    report = check(
        *(row(chat(u, a)) for u, a in zip(ASK, TELL)),
        "",
        row(chat(ASK[0] + " And the smallest?", "The Pacific, and the Arctic.")[1:]),
    )
    assert report.ok and report.rows == report.rows_good == 7
    assert report.shapes == {"system user assistant": 6, "user assistant": 1}
    lengths = {"total": 15, "mean": pytest.approx(15 / 7), "median": 2, "p95": 5, "longest": 5}
    assert len(report.answers) == 7 and report.lengths["answer"] == lengths


LIKE_A_PROMPT = (
    "Give a short recommendation based on the provided data, at most 3 sentences, "
    "in a friendly tone."
)
SEPERTI_PROMPT = "Berikan rekomendasi singkat berdasarkan data berikut, maksimal 3 kalimat."


@pytest.mark.parametrize(
    "line, kind, told",
    [
        ('{"messages": [', "bad_json", "Expecting value at character"),
        ("{'messages': []}", "bad_json", "double quotes"),
        ("[" * 100_000, "bad_json", "nested too deeply"),
        (b'{"messages": "\xff"}', "bad_text", "byte 15 is not UTF-8"),
        ("[1, 2]", "no_object", "found a list"),
        ("null", "no_object", "a NoneType"),
        ('{"prompt": "a", "completion": "b"}', "no_object", "prompt, completion"),
        ('{"messages": []}', "no_object", "not empty"),
        ('{"messages": "hello"}', "no_object", "a list"),
        ('{"\\ud83d": 1}', "no_object", "keys"),
        (row(["hello"]), "bad_message", "message 1 is no object"),
        (row([{"content": "a"}]), "bad_message", "no object with a role"),
        (row(chat(assistant=["a"])), "bad_message", "is a list"),
        (row([*chat()[:2], {"role": "bot", "content": "Hi."}]), "unknown_role", "'bot'"),
        (row(chat()[:2]), "role_order", "last message is by user"),
        (row([chat()[1], chat()[0], chat()[2]]), "role_order", "a system message after"),
        (row([chat()[0], chat()[2]]), "role_order", "begins with assistant"),
        (row([chat()[0], *chat()]), "role_order", "a system message after"),
        (row([chat()[0]]), "role_order", "system alone"),
        (row([chat()[1], *chat()[1:]]), "role_order", "two user messages"),
        (row([*chat(), chat()[2]]), "role_order", "two assistant"),
        (row([{"role": "tool", "content": "42"}, chat()[2]]), "role_order", "begins with tool"),
        (row([*chat(), {"role": "tool", "content": "42"}]), "role_order", "is by tool"),
        (row(chat(assistant=" \n")), "empty_answer", "assistant"),
        (row(chat(assistant=None)), "empty_answer", "None"),
        (row(chat(user="")), "empty_prompt", "user"),
        (row(chat(user="change: nan, week: 2")), "nan_in_prompt", "change: nan"),
        (row(chat(user="usage: NaN")), "nan_in_prompt", "NaN"),
        (row(chat(user=f"{'a ' * 99}usage: nan,{' b' * 99}")), "nan_in_prompt", "a usage: nan,"),
        (row(chat(user="name: None, age: 3")), "nan_in_prompt", "None"),
        (row(chat(system="month: NaT\nday: 3")), "nan_in_prompt", "NaT"),
        (row(chat(user="usage: 38768900000000000.0 kWh")), "huge_number", "38768900000000000.0"),
        (row(chat(assistant=ASK[0])), "instruction_in_answer", "repeats the prompt"),
        (row(chat("Boil eggs", "boil  eggs")), "instruction_in_answer", "repeats the prompt"),
        (row(chat(assistant="Sure! " + ASK[0])), "instruction_in_answer", "contains the prompt"),
        (row(chat(assistant=LIKE_A_PROMPT)), "instruction_in_answer", "asks for one"),
        (row(chat(assistant=SEPERTI_PROMPT)), "instruction_in_answer", "asks for one"),
        (row([*chat(assistant=LIKE_A_PROMPT), *chat()[1:]]), "instruction_in_answer", "asks"),
        (json.dumps({"messages": chat("Hi \ud83d!")}), "lone_surrogate", "message 2 (user)"),
        (row(chat(assistant="Eight.<|im_end|>")), "control_marker", "<|im_end|>"),
        (row(chat("[INST] Hi [/INST]")), "control_marker", "[INST]"),
        (row(chat("<start_of_turn>model")), "control_marker", "<start_of_turn>"),
        (row(chat()).replace('"role"', '"role": "bot", "role"', 1), "repeated_key", "'role'"),
    ],
)
def test_each_defect_alone(check, line, kind, told):
    report = check(row(chat(ASK[1], TELL[1])), line, row(chat(ASK[2], TELL[2])))
    assert found(report) == [(2, kind)] and told in report.problems[0].detail
    assert (report.rows, report.rows_good, report.ok) == (3, 2, False)
    assert report.summary().startswith(f"chat.jsonl: line 2: {kind} (")
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.problems[0].line = 1  # a finding stays as it was found


@pytest.mark.parametrize(
    "answer, kinds",
    [
        ("Your task: at most 3 sentences.", ["instruction_in_answer"]),
        ("It boils in 3 sentences, at most 3 sentences.", ["instruction_in_answer"]),
        ("I did it in 3 sentences. In 3 sentences!", []),
    ],
)
def test_two_wordings_of_instructions_make_one_and_the_same_wording_twice_does_not(
    check, answer, kinds
):
    assert [kind for _, kind in found(check(row(chat(assistant=answer))))] == kinds


def test_an_answer_may_quote_four_words_of_the_request_but_not_five(check):
    for words, kinds in (("one two three four", []), ("one two three four five", [2])):
        lines = row(chat(ASK[1], TELL[1])), row(chat(words, f"You said {words}, I think."))
        assert [line for line, _ in found(check(*lines))] == kinds


@pytest.mark.parametrize(
    "text",
    ["." * 200_000, "9" * 200_000, "a" * 200_000, ":  " * 70_000, "an " * 70_000, "<|" * 100_000],
    ids=lambda text: repr(text[:3]),
)
def test_time_grows_with_the_length_and_not_with_its_square(check, text):
    """Squared, 200,000 characters would take minutes."""
    start = time.process_time()
    check(row(chat(text, "Yes.")), row(chat("Yes?", text)))
    assert time.process_time() - start < 5


def test_special_tokens_of_the_tokenizer_count_as_markers(check, tokenizer):
    class Other:
        all_special_tokens = ["</s>"]
        chat_template = None

        def __call__(self, text, **_):
            return {"input_ids": text.split()}

    line = row(chat(assistant="Eight.</s>"))
    assert found(check(line)) == [] == found(check(row(chat()), tokenizer=tokenizer))
    assert found(check(line, tokenizer=Other())) == [(1, "control_marker")]


def test_a_surrogate_breaks_neither_tokens_nor_json(check, tokenizer):
    report = check(json.dumps({"messages": chat("\udc80", "\ud83d")}), tokenizer=tokenizer)
    assert found(report) == [(1, "lone_surrogate")] * 2
    assert json.dumps(report.as_dict(), ensure_ascii=False).encode() and report.lengths


def test_chats_are_written_and_read_back_and_faults_are_named(tmp_path):
    chats = [chat(u, a) for u, a in zip(ASK, TELL)] + [chat("Ada kopi apa?", "Kopi é 🍜.")]
    path = jsonl.write_chats(chats, tmp_path / "new" / "rows.jsonl")
    assert jsonl.read_chats(path) == chats
    assert "Kopi é 🍜." in path.read_text(encoding="utf-8")  # a person may read it, too
    path.write_text(row(chat()) + '\n{"messages": [\n' + row(chat(ASK[1], "")))
    with pytest.raises(CourseError, match=r"rows\.jsonl: line 2: bad_json .*; line 3: empty_answ"):
        jsonl.read_chats(path)


@pytest.mark.parametrize(
    "messages",
    [
        chat("Adakah nan jauh di sana?", "Ada."),
        chat("None of these is right, is it?", "Right."),
        chat("My card number is 4111111111111111.", "Never send it."),
        chat("Say hi.", "You are an ocean of patience. Hi."),
        [*chat(), *chat(ASK[1], TELL[1])[1:]],
        chat("Berapa suhu 36,5 derajat?", "Normal."),
        chat("Hi", "Hi"),
        [
            *chat()[:2],
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": "42"},
            {"role": "assistant", "content": "It is 42."},
        ],
        [
            chat()[1],
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}, {"id": "2"}]},
            {"role": "tool", "content": "42"},
            {"role": "tool", "content": "43"},
            {"role": "assistant", "content": "From 42 to 43."},
        ],
    ],
    ids="nan|none|card number|one such wording|turns|decimal comma|greeting|tool|tools".split("|"),
)
def test_no_false_alarm(check, messages):
    assert found(check(row(messages))) == []


def test_rows_that_only_services_take_are_named_before_a_training(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    told = [*chat()[:2], call, {"role": "tool", "content": "42"}, chat()[-1]]
    path = tmp_path / "tools.jsonl"
    path.write_text("\n".join([row(chat(ASK[1], TELL[1])), row(told)]), encoding="utf-8")
    with pytest.raises(CourseError, match=r"tools.jsonl, line 2: a message without text"):
        jsonl.read_chats(path)


def test_a_return_inside_an_object_is_read_as_it_was_judged(tmp_path):
    path = tmp_path / "cr.jsonl"
    path.write_bytes(row(chat()).replace('": [', '":\r [', 1).encode())
    assert jsonl.validate(path).ok and jsonl.read_chats(path) == [chat()]


def test_a_template_that_refuses_the_roles_does_not_end_the_report(tmp_path, tokenizer):
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    path = tmp_path / "turns.jsonl"
    path.write_text(row([*chat()[:2], *chat()[1:]]), encoding="utf-8")
    report = jsonl.validate(path, tokenizer=strict)
    assert report.kinds == {"role_order": 1} and report.lengths["row"]["total"] > 0


def test_nan_as_a_value_is_named_as_what_json_has_not(check):
    line = row(chat(assistant="it")).replace('"it"', "NaN")
    assert found(check(line)) == [(1, "json_nan"), (1, "empty_answer")]


def test_array_over_many_lines_is_recognised(check):
    report = check("[", row(chat()) + ",", row(chat(ASK[1], TELL[1])), "]")
    assert found(report) == [(line, "bad_json") for line in (1, 2, 4)]
    assert "one object a line" in report.problems[0].detail


def test_line_ends_and_marks(check):
    report = check(
        b"\xef\xbb\xbf" + row(chat(ASK[0], "One\u2028two\u0085three")).encode() + b"\r",
        b"\r",
        row(chat(ASK[1], TELL[1])) + "\r",
        "{",
    )
    assert found(report) == [(4, "bad_json")] and report.rows == 3


def test_empty_file(check):
    assert found(check("", " ")) == [(0, "no_object")] and not check().ok


@pytest.mark.parametrize(("many", "rest"), [(3, ""), (4, "; and 1 more"), (5, "; and 2 more")])
def test_the_summary_tells_three_problems_and_how_many_more_there_are(check, many, rest):
    told = check(*["{"] * many).summary()
    assert told.count("bad_json") == 3
    assert told.endswith(f"; {check(*['{'] * 3).summary().rpartition('; ')[2]}{rest}")


def test_of_one_line_at_most_three_keys_that_stand_twice_are_named(check):
    twice = "".join(f'"{name}": 1, "{name}": 2, ' for name in "abcd")
    report = check(row(chat()).replace("{", "{" + twice, 1))
    assert found(report) == [(1, "repeated_key")] * 3


def test_duplicates_name_the_first(check):
    report = check(
        row(chat()),
        row(chat(ASK[1], TELL[1])),
        row(chat(ASK[0].upper() + " ", TELL[0])),
        row(chat(ASK[0], "The Atlantic.")),
    )
    assert found(report) == [(3, "duplicate")] and report.problems[0].detail == "the same as line 1"


def test_constant_answer_needs_a_majority_of_several_rows(check):
    rows = [row(chat(user, "Yes.")) for user in ASK]
    assert found(check(*rows)) == [(0, "constant_answer")] and check(*rows).rows_good == 6
    cut = [row(chat(text)[:2] + [{"role": "user", "content": "Eight."}]) for text in ASK]
    empty = [row(chat(text, " ")) for text in ASK]
    for lines in (cut, empty):  # what is no answer is not counted as one
        assert "constant_answer" not in check(*lines).kinds
    assert found(check(*rows[:4])) == []
    assert found(check(*rows[:5])) == [(0, "constant_answer")]
    mostly = check(*rows[:5], row(chat(ASK[5], TELL[5]))).problems[0].detail
    assert mostly == "5 of 6 answers are 'yes .'"
    assert found(check(*rows[:3], *(row(chat(u, a)) for u, a in zip(ASK[3:], TELL[3:])))) == []


def test_rows_that_are_in_the_training_file(check, tmp_path):
    train = tmp_path / "train.jsonl"
    ends_alike = chat("And why is that?", "Nobody knows.")[1:]
    why = [[*chat(ASK[n], TELL[n]), *ends_alike] for n in (3, 5)]
    train.write_text(
        "\n".join(row(chat(u, a)) for u, a in zip(ASK[:3], TELL))
        + '\n{"messages": 1}\nnothing\n'
        + "\n".join([row(chat("Room at 21 degrees, 4 people.", "Fine.")), row(why[0])]),
        encoding="utf-8",
    )
    report = check(
        row(chat(ASK[0], "Another answer.")),
        row(chat(ASK[1].replace("Who painted", "who  painted") + "!", TELL[1])),
        row(chat(ASK[4], TELL[4])),
        row(chat("Room at 22 degrees, 4 people.", "Warm.")),
        row(why[1]),
        train=train,
    )
    assert found(report) == [(1, "in_train"), (2, "in_train")]
    assert report.problems[0].detail == "the prompt of line 1 of train.jsonl"
    assert report.problems[1].detail.endswith("% the prompt of line 2 of train.jsonl")


def test_nine_letters_of_ten_make_two_prompts_alike_and_eight_of_nine_do_not(check, tmp_path):
    for trained, asked, kinds in (
        ("abcdefghij", "abcdefghix", {"in_train": 1}),
        ("abcdefghi", "abcdefghx", {}),
    ):
        train = jsonl.write_chats([chat(trained)], tmp_path / "train.jsonl")
        assert check(row(chat(asked)), train=train).kinds == kinds


def test_tokens_with_a_tokenizer(check, tokenizer):
    report = check(row(chat()), row(chat(ASK[1], TELL[1])), tokenizer=tokenizer)
    text = tokenizer.apply_chat_template(chat(), tokenize=False)
    size = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert report.unit == "tokens" and report.lengths["row"]["longest"] >= size > 15
    other, bos = copy.deepcopy(tokenizer), tokenizer.bos_token  # begins each text itself
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    lines = row(chat()), row(chat(ASK[1], TELL[1]))
    assert check(*lines, tokenizer=other).lengths == report.lengths


def test_rows_with_an_unknown_role_have_no_length(check):
    assert check(row([*chat()[:2], {"role": "bot", "content": "Hi."}])).lengths == {}


KEYS = st.sampled_from(["messages", "role", "content", "a"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(KEYS, x, max_size=3),
)
LINES = st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode())
QUICK = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


@settings(max_examples=60, **QUICK)
@given(st.lists(LINES, max_size=5))
def test_any_bytes_give_a_report(tmp_path, lines):
    (tmp_path / "any.jsonl").write_bytes(b"\n".join(lines))
    report = jsonl.validate(tmp_path / "any.jsonl", train=tmp_path / "any.jsonl")
    assert 0 <= report.rows_good <= report.rows and report.as_dict()["rows"] == report.rows


def call(*arguments):
    with pytest.raises(SystemExit) as left:
        cli_main.main(["data", "validate-jsonl", *map(str, arguments)])
    return left.value.code


def test_command_line(tmp_path, capsys):
    good, bad, none = (tmp_path / name for name in ("good.jsonl", "bad.jsonl", "none.jsonl"))
    good.write_text("\n".join(row(chat(u, a)) for u, a in zip(ASK, TELL)), encoding="utf-8")
    bad.write_text(row(chat(assistant="")) + "\n{[bold]\n", encoding="utf-8")
    for code, kinds, *arguments in (
        (0, {}, good),
        (1, {"empty_answer": 1, "bad_json": 1}, bad),
        (1, {"in_train": 6}, good, "--train", good),
    ):
        assert call(*arguments, "--json") == code
        assert json.loads(capsys.readouterr().out)["kinds"] == kinds
    assert call(good) == 0 and "rows good: 6" in capsys.readouterr().out
    assert call(bad) == 1 and "bad_json" in capsys.readouterr().out
    assert [call(*words) for words in ((none,), (tmp_path,), (good, "--tokenizer", none))] == [
        2
    ] * 3
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 3
