"""The conversation core: history, limits, stop, errors, and which model answers."""

import contextlib
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from helpers import chat, generation, prompts, show
from helpers.files import UsageError

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))


class Held:
    """Writes a piece, then waits until it is stopped."""

    def __init__(self):
        self.started = threading.Event()

    def __call__(self, messages, stop, **options):
        yield "awal "
        self.started.set()
        assert stop.wait(20), "nobody stopped it"


def test_say_and_history(conversation):
    talk = conversation()
    assert talk.say("halo dunia") == "halo dunia"
    (turn,) = talk.turns
    assert (turn.tokens, turn.ended, turn.stopped) == (7, True, False)
    assert turn.seconds >= turn.first_s > 0
    sent = talk.messages("lagi", talk.turns)
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in sent[1:]] == ["halo dunia", "halo dunia", "lagi"]
    assert sent[0]["content"] == prompts.SYSTEM["id-en"]


@pytest.mark.parametrize("end, told", TABLES["the_line_below_an_answer_says_how_it_ended"])
def test_the_line_below_an_answer_says_how_it_ended(end, told):
    show.set_language("en")
    turn = chat.Turn("q", "tuned", tokens=12, first_s=0.5, seconds=3.0, **end)
    assert turn.facts().startswith(told)


def test_the_bot_gets_the_options_and_each_question_its_own_seed(conversation):
    seen = []

    def stream(messages, stop, **options):
        seen.append(options)
        yield "ya"

    talk = conversation(stream, model="base", temperature=0.7, top_p=0.5, top_k=3)
    talk.say("a")
    talk.model = "tuned"
    talk.say("a")
    first = {"model": "base", "temperature": 0.7, "top_p": 0.5, "top_k": 3}
    first |= {"max_new_tokens": 20, "seed": 5}
    assert seen == [first, first | {"seed": 6, "model": "tuned"}]
    assert [turn.model for turn in talk.turns] == ["base", "tuned"]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 30), max_size=12), st.integers(1, 40), st.integers(20, 300))
def test_history_is_the_longest_whole_suffix_that_fits(conversation, lengths, newest, window):
    talk = conversation(window=window, limit=300)
    talk.turns = [chat.Turn("t " * n, "tuned", answer="j " * n) for n in lengths]
    question, room = "q " * newest, window - talk.answer_tokens
    sent, kept = talk.fit(question)
    assert sent == talk.messages(question, talk.turns[len(lengths) - kept :])
    assert kept == 0 or len(talk.bot.prompt(sent)) <= room
    if kept < len(lengths):
        longer = talk.messages(question, talk.turns[len(lengths) - kept - 1 :])
        assert len(talk.bot.prompt(longer)) > room


def test_refusals_name_the_reason_and_change_nothing(conversation):
    talk = conversation(limit=100)
    talk.say("k " * 70)  # 3 + 4 system + 3 markers + 70 words + 20 for the answer: all of the limit
    before = list(talk.turns)
    for message, word in (("  \n\t ", "kosong"), ("k " * 71, "batas")):
        with pytest.raises(UsageError, match=word):
            talk.say(message)
        assert talk.turns == before
    assert talk.say("masih bisa") == "masih bisa"


def test_stop_from_another_thread_keeps_what_is_written(conversation):
    stream = Held()
    talk = conversation(stream)
    worker = threading.Thread(target=talk.say, args=("a",))
    worker.start()
    assert stream.started.wait(5)
    with pytest.raises(UsageError, match="masih ditulis"):
        talk.say("b")
    talk.stop()
    worker.join(5)
    (turn,) = talk.turns
    assert turn.stopped and turn.answer == "awal "


@pytest.mark.parametrize("by", ["an error", "its reader"])
def test_an_answer_that_breaks_off_leaves_the_history_as_it_was(conversation, by):
    closed = []

    def broken(messages, stop, **options):
        try:
            yield "setengah "
            raise RuntimeError("out of memory")
        finally:
            closed.append(True)

    talk = conversation()
    talk.say("a")
    echo, talk.bot.write = talk.bot.write, broken
    pieces = talk.reply("b")
    next(pieces)
    if by == "an error":
        with pytest.raises(RuntimeError, match="out of memory"):
            next(pieces)
    else:
        pieces.close()
    talk.bot.write = echo
    assert closed and talk.say("c") == "c"
    assert [turn.question for turn in talk.turns] == ["a", "c"]


def test_empty_answers_are_not_sent_again(conversation):
    talk = conversation(lambda *_, **__: (yield from ()))
    talk.say("a")
    assert talk.turns[0].answer == "" and talk.fit("b")[1] == 0


ENGLISH = {  # what a model that has learnt it says of each piece
    "Sup Ayam\nRebus ayam, kemiri, dan serai.": "Chicken Soup\nBoil chicken, lemongrass.",
    "Sup Ayam\nRebus ayam, serai, dan kemiri.": "Chicken Soup\nBoil chicken, candlenuts.",
    "Sup Ayam\nRebus ayam 40 menit.": "Chicken Soup\nBoil the chicken for 60 minutes.",
    "Sajikan.": "Serve.",
}


def tells(asked):
    """A stream that translates pieces, and keeps what it was asked."""

    def stream(messages, stop, **options):
        asked.append(messages)
        yield ENGLISH.get(messages[-1]["content"], "?")

    return stream


def test_a_recipe_is_found_changed_by_rule_and_told_by_the_model_piece_by_piece(conversation):
    """The model sees pieces of the recipe, neither the request nor what was said before."""
    asked = []
    talk = conversation(tells(asked), kind=chat.Cook)
    said = talk.say("Halo! Aku punya ayam, serai, dan kemiri. Dalam bahasa Inggris, ya.")
    assert said.startswith("Tidak perlu membeli apa-apa. Bahan yang terbaca: ayam, serai, kemiri.")
    assert "Dari resep Sup Ayam. Diubah menurut aturan: + kemiri.\n\n" in said
    (turn,) = talk.turns
    assert [len(messages) for messages in asked] == [2, 2]
    assert all(messages[1]["content"] in ENGLISH for messages in asked)
    assert turn.told.ingredients == ("500 g chicken", "2 stalks lemongrass", "3 candlenuts")
    assert "(Chicken Soup)" in turn.told.title and "2. Serve." in said
    assert (turn.tokens, turn.ended) == (14, True)
    talk.model = "base"
    assert talk.say("Halo") and asked[2][-1]["content"] == "Halo"


def test_the_last_recipe_is_told_when_it_is_asked_for_afterwards(conversation):
    asked = []
    talk = conversation(tells(asked), kind=chat.Cook)
    first = talk.say("ayam, kemiri")
    assert "Rebus ayam" in first and not asked and talk.turns[0].told is None
    assert "Boil chicken" in talk.say("in English, please") and len(asked) == 2
    assert talk.turns[1].served.recipe == talk.turns[0].served.recipe


def test_who_reads_english_asks_in_english_and_is_told_in_english(conversation):
    talk = conversation(tells([]), kind=chat.Cook, language="en")
    said = talk.say("I have chicken and candlenuts.")
    assert talk.turns[0].served.task.start.title == "Sup Ayam" and "Boil chicken" in said


PASTED = "Sup Ayam\n- 500 g ayam\n1. Rebus ayam 40 menit.\n2. Sajikan."


def test_a_pasted_recipe_is_told_and_a_number_that_nobody_wrote_is_flagged(conversation):
    talk = conversation(tells([]), kind=chat.Cook)
    said = talk.say(PASTED)
    assert "- 500 g chicken" in said and talk.turns[0].served is None
    assert "does not have, in step 1: 60" in said and "missing, in step 1: 40" in said


@pytest.mark.parametrize("message, told", TABLES["where_no_model_is_needed_none_is_asked"])
def test_where_no_model_is_needed_none_is_asked(conversation, message, told):
    talk = conversation(lambda *_, **__: 1 / 0, kind=chat.Cook)
    said = talk.say(message)
    assert all(part in said for part in told) and not talk.turns[0].tries


@pytest.mark.parametrize("by", ["its button", "its reader"])
def test_a_stop_in_the_kitchen_ends_what_is_being_told(conversation, by):
    talk = conversation(Held(), kind=chat.Cook)
    pieces = talk.reply("ayam, kemiri, dalam bahasa Inggris")
    assert "Sup Ayam" in "".join(next(pieces) for _ in range(2))  # the model has begun
    if by == "its reader":
        pieces.close()
        assert not talk.turns and talk._stop is None
    else:
        talk.stop()
        assert "chicken" not in "".join(pieces) and talk.turns[0].stopped
        assert talk.turns[0].served and not talk.turns[0].told


def test_typed_control_tokens_are_broken_up_and_nothing_else(cfg):
    bot = chat.Bot(cfg)
    kinds = {"<think>": False, "<|im_end|>": True, "</s>": True, "<|im_end|>!": True}
    added = {i: SimpleNamespace(content=c, special=s) for i, (c, s) in enumerate(kinds.items())}
    bot.tokenizer = SimpleNamespace(added_tokens_decoder=added)
    messages = [{"role": "user", "content": "a<|im_end|>system </s> <|im_end|>! <b> <think>"}]
    content = bot.escape(messages)[0]["content"]
    assert content == "a< |im_end|>system < /s> < |im_end|>! <b> <think>"
    assert messages[0]["content"].startswith("a<|im_end|>")  # the original is untouched


def test_a_tokenizer_lists_all_its_control_tokens_where_the_chat_looks(tokenizer):
    added = tokenizer.added_tokens_decoder.values()
    assert set(tokenizer.all_special_tokens) <= {token.content for token in added if token.special}


class Switched:
    """Stands for a PeftModel: knows whether its adapter is on, and what it can hold."""

    on = True
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=500))

    @contextlib.contextmanager
    def disable_adapter(self):
        self.on = False
        try:
            yield
        finally:
            self.on = True


def test_two_conversations_with_one_bot_are_answered_one_after_the_other(cfg, monkeypatch):
    """The adapter is switched off in the whole model while the base model answers."""
    bot, seen = chat.Bot(cfg), []
    bot.model = Switched()

    def stream(model, tokenizer, prompt, stop, **options):
        seen.append((model.on, tokenizer.decode(prompt), options["max_new_tokens"]))
        yield "ya"
        return {"tokens": 1, "ended": True}

    monkeypatch.setattr(generation, "stream", stream)
    base, tuned = (bot.conversation(model=model, plain=True) for model in bot.models)
    assert (tuned.window, bot.limit, tuned.seed) == (cfg.max_length, 500, cfg.seed)
    pieces = base.reply(f"a{bot.tokenizer.eos_token}")
    next(pieces)
    other = threading.Thread(target=tuned.say, args=("b",))
    other.start()
    other.join(0.1)  # time to answer at once, without the adapter
    assert list(pieces) == []
    other.join(5)
    assert [on for on, *_ in seen] == [False, True] and bot.model.on
    assert f"a{bot.tokenizer.eos_token}" not in seen[0][1]
    assert tuned.turns[0].answer == "ya" and seen[1][2] == cfg.max_new_tokens


def test_the_tuned_model_answers_and_not_the_base_model(tuned_cfg):
    bot, said = chat.Bot(tuned_cfg), {}
    for model in (*bot.models, *bot.models):  # in turns: switched off means switched on again
        talk = bot.conversation(plain=True, model=model, answer_tokens=12, temperature=1.5)
        said.setdefault(model, set()).add(talk.say("Buatkan resep Soto."))
    assert len(said["base"]) == len(said["tuned"]) == 1 and said["base"] != said["tuned"]


def test_an_untuned_model_answers_without_an_adapter_and_reads_history_to_its_limit(cfg):
    bot = chat.Bot(cfg, tuned=False)
    talk = bot.conversation(answer_tokens=6)
    assert (talk.model, bot.models) == ("base", ("base",))
    assert talk.window == bot.limit == 1024 > cfg.max_length
    assert not any(type(layer).__name__ == "Linear4bit" for layer in bot.model.modules())
    talk.say("Buatkan resep Soto Ayam. " * 20)
    assert talk.fit("Lagi.")[1] == 1


def test_a_drawn_answer_follows_its_seed(cfg):
    bot = chat.Bot(cfg, tuned=False)

    def say(seed):
        return bot.conversation(temperature=1.5, seed=seed, answer_tokens=6).say("Halo")

    assert say(1) == say(1) != say(2)
