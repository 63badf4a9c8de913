"""What the reader did with the files it was given: rows kept, dropped and mended, files skipped, copies found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class Report:
    """What was read, kept, mended and dropped; `rows_read == rows_kept + rows_dropped` always holds.

    `files` has rows_read, rows_kept and remarks (encoding, separator, column names out of the ordinary) of each recipe file,
    `skipped` the other files and why, `drops` one row per dropped row (file, line, reason, title), `mended` how much was
    cleaned of what in the kept rows. Lines count from 1, as an editor shows them.
    """

    files: list[dict] = field(default_factory=list)
    drops: list[dict] = field(default_factory=list)
    skipped: list[dict] = field(default_factory=list)
    mended: Counter = field(default_factory=Counter)
    _kept: list[tuple[str, np.ndarray, np.ndarray]] = field(
        default_factory=list, repr=False
    )  # file, lines, hashes: 16 bytes a row

    @property
    def rows_read(self) -> int:
        return sum(f["rows_read"] for f in self.files)

    @property
    def rows_kept(self) -> int:
        return sum(f["rows_kept"] for f in self.files)

    @property
    def rows_dropped(self) -> int:
        return len(self.drops)

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(d["reason"] for d in self.drops).most_common())

    def note_kept(self, file: str, table: pd.DataFrame) -> None:
        """Remember a hash of each kept row's ingredients and steps in lower case, so that copies can be named in the end."""
        text = pc.utf8_lower(
            pa.array((table["ingredients"] + "\n\n" + table["steps"]), pa.string())
        )
        hashes = pd.util.hash_array(text.to_numpy(zero_copy_only=False), categorize=False)
        self._kept.append((file, table["line"].to_numpy(dtype=np.int64), hashes))

    def duplicates(self) -> pd.DataFrame:
        """Kept rows whose ingredients and steps stood before, in the same file or in another: file, line, of_file, of_line.

        Titles may differ. The rows stay in the table; `splits` lets one copy through. Near-duplicates: `splits.similar_pairs`.
        """
        found, first = [], {}
        hashes = np.concatenate([h for _, _, h in self._kept] or [np.empty(0, np.uint64)])
        ordered = np.sort(hashes)
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        starts = np.cumsum([0, *(len(lines) for _, lines, _ in self._kept)])
        for row in np.flatnonzero(np.isin(hashes, repeated)):
            chunk = int(np.searchsorted(starts, row, side="right")) - 1
            place = (self._kept[chunk][0], int(self._kept[chunk][1][row - starts[chunk]]))
            before = first.setdefault(hashes[row], place)
            if before is not place:
                found.append((*place, *before))
        return pd.DataFrame(found, columns=["file", "line", "of_file", "of_line"])

    def as_dict(self) -> dict:
        return {
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "rows_dropped": self.rows_dropped,
            "reasons": self.reasons,
            "duplicates": len(self.duplicates()),
            "mended": dict(self.mended.most_common()),
            "files": self.files,
            "skipped": self.skipped,
        }

    def table(self) -> pd.DataFrame:
        """The dropped rows as a table one can filter and save."""
        return pd.DataFrame(self.drops, columns=["file", "line", "reason", "title"])
