"""Lesson 05: a conversation (history, window, stop) and its notebook widget."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    conversation="Bot UntunedBot Conversation Turn Refused TooLong MODELS facts "
    "escape_special_tokens",
    widget="ChatWidget render show",
)
