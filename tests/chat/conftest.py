"""A bot that is no model, and conversations with it."""

from types import SimpleNamespace

import pytest

from helpers import kitchen, prompts, show
from helpers.chat import Conversation
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
    "Tumis Tahu",
    ("300 g tahu", "3 butir kemiri"),
    ("Tumis tahu dan kemiri.",),
    recipe_id="tahu",
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


FACTS = {"tokens": 7, "ended": True}


def echo(chat, stop, **options):
    """Answers with the question."""
    yield chat[-1]["content"]


class FakeBot:
    """`chat.Bot`'s interface over a function; one token a word, three for each message."""

    system, tuned = prompts.SYSTEM["id-en"], True
    models, kitchen = ("base", "tuned"), kitchen.Kitchen([SUP, TAHU], "id", [SOUP, TOFU])
    teller = Translator([Pair(SUP, SOUP), Pair(TAHU, TOFU)], "id-en")

    def __init__(self, write, limit, language="id"):
        self.write, self.limit = write, limit
        told = {"task": "id-en", "data_language": "id", "language": language, "max_length": 200}
        self.cfg = SimpleNamespace(**told, max_new_tokens=100)

    def prompt(self, chat):
        return [0] * sum(3 + len(message["content"].split()) for message in chat)

    def stream(self, chat, stop, **options):
        """What the function writes; its tokens, as a model reports them."""
        yield from self.write(chat, stop, **options)
        return FACTS


@pytest.fixture
def conversation():
    show.set_language("id")

    def made(stream=echo, limit=200, kind=Conversation, language="id", **options):
        given = {"model": "tuned", "window": 60, "answer_tokens": 20, "seed": 5}
        return kind(FakeBot(stream, limit, language), **(given | options))

    return made
