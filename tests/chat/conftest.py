"""A bot that is no model, and conversations with it."""

from types import SimpleNamespace

import pytest

from helpers import show
from helpers.chat import Conversation


def echo(chat, stop, **options):
    """Answers with the question; reports its tokens as a model does."""
    yield chat[-1]["content"]
    return {"tokens": 7, "ended": True}


class FakeBot:
    """`chat.Bot`'s interface over a function; one token a word, three for each message."""

    models = ("base", "tuned")

    def __init__(self, stream, limit):
        self.stream, self.limit, self.cfg = stream, limit, SimpleNamespace(data_language="id")

    def count(self, chat):
        return sum(3 + len(message["content"].split()) for message in chat)


@pytest.fixture
def conversation():
    show.set_language("id")

    def made(stream=echo, limit=200, **options):
        given = {"model": "tuned", "window": 60, "answer_tokens": 20, "seed": 5}
        return Conversation(FakeBot(stream, limit), **(given | options))

    return made
