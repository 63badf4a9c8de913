"""The torch Dataset of every training: chats encoded, checked, and no longer than the limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from . import prompts


class ChatDataset(torch.utils.data.Dataset):
    """Encoded chats of at most `max_length` tokens; what is longer goes to `too_long`, never cut.

    A chat is a list of messages whose last one is the answer to learn, or whatever `encode` takes:
    `encode(chat, tokenizer)` returns an `Encoded` row, and `check(row, chat, tokenizer)` raises
    LabelMaskError for a row that would teach the wrong thing. `rows[i]` was made of `chats[i]`.
    """

    def __init__(
        self,
        chats: Iterable,
        tokenizer,
        max_length: int,
        encode: Callable[..., prompts.Encoded] = prompts.encode,
        check: Callable[..., None] = prompts.check,
    ):
        self.chats, self.rows, self.too_long = [], [], []
        for chat in chats:
            row = encode(chat, tokenizer)
            if len(row) > max_length:
                self.too_long.append(chat)
                continue
            check(row, chat, tokenizer)
            self.chats.append(chat)
            self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        return {"input_ids": self.rows[i].input_ids, "labels": self.rows[i].labels}

    @property
    def tokens(self) -> int:
        """Tokens of all rows, prompts and answers."""
        return sum(map(len, self.rows))
