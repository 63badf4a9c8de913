"""Lesson 05: a conversation (history, window, stop) and its notebook widget."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    conversation="Bot Conversation Turn Refused MODELS escape_special_tokens facts",
    widget="ChatWidget render show",
)
