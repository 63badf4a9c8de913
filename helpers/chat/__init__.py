"""Lesson 05: a conversation (history, window, stop) and its notebook widget."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    conversation="MODELS MOST_CHARACTERS Refused Turn Conversation escape_special_tokens AnyBot Bot",
)
