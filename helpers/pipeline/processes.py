"""A child process with everything it starts: its memory, and an end that leaves nothing running.

Only psutil, so it works alike on Linux, macOS and Windows. Kernels live in their own process group, hence neither a
signal to the group nor the end of their parent is sure to end them.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import psutil

from ..course.errors import CourseError
from ..course.files import write_json


class Tree:
    """The descendants of one process as seen so far. `look` has to be called often; it also measures."""

    def __init__(self, pid: int):
        self.root = psutil.Process(pid)
        self.seen: dict[int, psutil.Process] = {}
        self.peak_bytes = (
            0  # of the descendants together (the kernel and what it starts), without the root
        )

    def look(self) -> int:
        """Resident bytes of the descendants now; a spike shorter than the time between two looks goes unseen."""
        try:
            for child in self.root.children(recursive=True):
                self.seen.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            pass  # the root has ended; its descendants may still run
        now = 0
        for child in self.seen.values():
            try:
                now += child.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        self.peak_bytes = max(self.peak_bytes, now)
        return now

    def identities(self) -> list[list]:
        """[pid, creation time] of root and descendants: a pid alone may have been given away again."""
        rows = []
        for process in (self.root, *self.seen.values()):
            try:
                rows.append([process.pid, process.create_time()])
            except psutil.NoSuchProcess:
                continue
        return rows

    def kill(self) -> None:
        """End root and descendants, those also that outlived their parent."""
        self.look()
        end([self.root, *self.seen.values()])


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    psutil.wait_procs(processes, timeout=10)


def alive(identity: list) -> psutil.Process | None:
    """The process with this [pid, creation time], if it still runs."""
    try:
        process = psutil.Process(identity[0])
        return (
            process
            if abs(process.create_time() - identity[1]) < 1
            and process.status() != psutil.STATUS_ZOMBIE
            else None
        )
    except psutil.NoSuchProcess:
        return None


class Lock:
    """One run at a time on the artifacts of one key. The file names this process and the kernels it started.

    A runner that was killed outright cannot end its kernel; the next run with the same key finds it here and does.
    """

    def __init__(self, path: Path):
        self.path = path

    def acquire(self) -> int:
        """Take the lock; returns how many processes of a dead run were ended. Raises CourseError while another run lives."""
        left = 0
        if self.path.is_file():
            try:
                before = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError:
                before = {"runner": [0, 0], "children": []}
            if before["runner"][0] != os.getpid() and alive(before["runner"]):
                raise CourseError(
                    f"another run with the same settings is going on (process {before['runner'][0]}). Wait for it, or "
                    "choose another --profile, --data-language or --seed."
                )
            orphans = [process for identity in before["children"] if (process := alive(identity))]
            left = len(orphans)
            end(orphans)
        self.note([])
        return left

    def note(self, children: list[list]) -> None:
        me = psutil.Process()
        write_json(self.path, {"runner": [me.pid, me.create_time()], "children": children})

    def release(self) -> None:
        self.path.unlink(missing_ok=True)


@contextmanager
def interruptible():
    """Within it, a request to terminate or a closed terminal is a KeyboardInterrupt, so that the clean-up runs."""

    def stop(number, frame):
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), stop) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
