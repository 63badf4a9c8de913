"""What a person sees while the pipeline runs: one live line on a terminal, a line now and then elsewhere (CI, a file)."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_EVERY = 20.0  # seconds between two plain lines of one notebook


def clock(seconds: float) -> str:
    """Minutes and seconds: 75 -> "1:15"."""
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Lines for the terminal, kept in `log` too. `on_stderr` leaves standard output to the machine-readable result."""

    def __init__(self, log: Path | None = None, on_stderr: bool = False):
        self.console = Console(stderr=on_stderr, highlight=False, soft_wrap=True)
        self.log, self.live, self.last = log, None, 0.0

    def line(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self.clear()
        self.console.print(Text(text, style=style))
        if self.log:
            with open(self.log, "a", encoding="utf-8") as handle:
                handle.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def update(self, text: str) -> None:
        """Where the running notebook is: replaces the last one on a terminal, at most every 20 s elsewhere."""
        if self.console.is_terminal:
            if self.live is None:
                self.live = Live(console=self.console, transient=True, refresh_per_second=4)
                self.live.start()
            self.live.update(Text(text, style="cyan"))
        elif time.monotonic() - self.last >= PLAIN_EVERY:
            self.last = time.monotonic()
            self.line(text)

    def begin(self) -> None:
        """A new notebook: the next plain line comes after a full interval."""
        self.last = time.monotonic()

    def clear(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


def where(
    number: int,
    total: int,
    name: str,
    cell: int,
    cells: int,
    seconds: float,
    expected: float | None,
    memory_gb: float,
) -> str:
    """ "[4/6] 03_qlora_training: code cell 14/31 · 3:20 of about 11:00 · 2.1 GB"."""
    of = f" of about {clock(expected)}" if expected else ""
    return f"[{number}/{total}] {name}: code cell {cell}/{cells} · {clock(seconds)}{of} · {memory_gb:.1f} GB"
