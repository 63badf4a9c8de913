"""Streams that are no model, and conversations over them."""

import threading
import time

from helpers.chat import Conversation


def echo(messages, stop, **options):
    """Answers with the question; reports its tokens as a model does."""
    yield messages[-1]["content"]
    return {"tokens": 7, "ended": True}


class Held:
    """Writes a piece, then waits for `go` or for stop."""

    def __init__(self):
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, messages, stop, **options):
        yield "awal "
        self.started.set()
        end = time.monotonic() + 20  # a test that forgets it fails, and does not hang
        while not (stop.is_set() or self.go.is_set()):
            assert time.monotonic() < end, "neither stopped nor let go"
            time.sleep(0.002)
        if not stop.is_set():
            yield "akhir"


def count(messages):
    """One token a word, three for the markers of each message."""
    return sum(3 + len(m["content"].split()) for m in messages)


def conversation(stream=echo, **options):
    return Conversation(
        stream, count, **({"window": 60, "limit": 200, "answer_tokens": 20} | options)
    )
