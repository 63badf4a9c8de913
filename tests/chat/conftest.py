"""A bot that is no model, and conversations with it."""

from types import SimpleNamespace

import pytest

from helpers import prompts
from helpers.chat import Conversation
from helpers.kitchen import Kitchen
from helpers.pairs import Pair
from helpers.recipes import Recipe
from helpers.translator import Translator

SUP = Recipe(
    "Sup Ayam",
    ("500 g ayam", "2 batang serai"),
    ("Rebus ayam dan serai.", "Sajikan."),
    recipe_id="sup",
)
TAHU = Recipe(
    "Tumis Tahu", ("300 g tahu", "3 butir kemiri"), ("Tumis tahu dan kemiri.",), recipe_id="tahu"
)
SOUP = Recipe(
    "Chicken Soup",
    ("500 g chicken", "2 stalks lemongrass"),
    ("Boil the chicken and lemongrass.", "Serve."),
    recipe_id="sup",
)
TOFU = Recipe(
    "Fried Tofu",
    ("300 g tofu", "3 candlenuts"),
    ("Fry the tofu and candlenuts.",),
    recipe_id="tahu",
)


def echo(chat, stop, **options):
    """Answers with the question."""
    yield chat[-1]["content"]


class FakeBot:
    """`chat.Bot`'s interface over a function; one token a word, three for each message."""

    system = prompts.SYSTEM["id-en"]
    tuned = True
    models = ("base", "tuned")
    kitchen = Kitchen([SUP, TAHU], "id", [SOUP, TOFU])
    teller = Translator([Pair(SUP, SOUP), Pair(TAHU, TOFU)], "id-en")

    def __init__(self, write, limit, language):
        self.write = write
        self.limit = limit
        self.cfg = SimpleNamespace(
            task="id-en", data_language="id", language=language, max_new_tokens=100
        )

    def prompt(self, chat):
        return [0] * sum(3 + len(message["content"].split()) for message in chat)

    def stream(self, chat, stop, **options):
        """What the function writes, then what a model reports of it."""
        yield from self.write(chat, stop, **options)
        return {"tokens": 7, "ended": True}


@pytest.fixture(scope="session")
def teller():
    """Knows how the lists of two recipes are written in English."""
    return FakeBot.teller


@pytest.fixture(scope="session")
def conversation():
    """conversation(stream, ...): one whose answers the function writes."""

    def made(stream=echo, limit=200, kind=Conversation, language="id", window=60, **options):
        bot = FakeBot(stream, limit, language)
        return kind(bot, window=window, answer_tokens=20, seed=5, **options)

    return made
