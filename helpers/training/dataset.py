"""Rows ready for training: encoded, checked, and no longer than the limit. Recipes, chats and questions are all rows of this kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from .prompts import Encoded


class Rows(torch.utils.data.Dataset):
    """Encoded rows of at most `max_length` tokens, each checked; `rows[i]` was made of `kept[i]`, what is longer is in `too_long`, never cut.

    `encode(item)` makes a row of an item; `check(row, item)` raises LabelMaskError for a row that would teach the wrong thing.
    """

    def __init__(
        self,
        items: Iterable,
        encode: Callable[..., Encoded],
        check: Callable[..., None],
        max_length: int,
    ):
        self.rows, self.kept, self.too_long = [], [], []
        for item in items:
            row = encode(item)
            if len(row) > max_length:
                self.too_long.append(item)
                continue
            check(row, item)
            self.rows.append(row)
            self.kept.append(item)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        return {"input_ids": self.rows[i].input_ids, "labels": self.rows[i].labels}

    @property
    def tokens(self) -> int:
        return sum(map(len, self.rows))
