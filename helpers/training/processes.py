"""The processes of one training: they meet, compare what they run, and only one of them speaks.

torchrun and accelerate launch start them and set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, ...
With one process every call here returns at once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import socket
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from ..course.errors import CourseError, UsageError, first_line
from ..course.files import hash_files
from ..course.settings import ROOT
from . import models

MEETINGS = itertools.count()  # each has its own part of the store
PATIENCE = timedelta(minutes=30)  # for a process that loads or saves while the others wait


class Processes:
    """The process group of a training; `rank` is this process's number, `count` how many they are.

    `wait`: seconds to wait for the others. Raises CourseError when they do not come or cannot be
    reached.
    """

    def __init__(self, wait: float):
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.backend, self.store, self.asked = None, None, 0
        if self.count == 1:
            return
        host, port = (os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        try:
            store, *_ = next(dist.rendezvous("env://", timeout=timedelta(seconds=wait)))
        except (RuntimeError, ValueError) as problem:  # ValueError: a variable is missing
            raise CourseError(
                f"process {self.rank} of {self.count} did not meet the others at {host}:{port} "
                f"within {wait:g} seconds ({first_line(problem)}). Start all {self.count} "
                "with torchrun, the same address and port; on several machines that port must be "
                "open."
            ) from None
        store.set_timeout(PATIENCE)
        self.store = dist.PrefixStore(f"meeting {next(MEETINGS)}", store)

    def connect(self, kind: str) -> None:
        """Form the group that trains on "cuda" (NCCL) or on "cpu" (gloo).

        Raises UsageError when two processes would share a GPU.
        """
        if self.count == 1:
            return
        self.backend = "nccl" if kind == "cuda" else "gloo"
        if kind == "cuda":
            torch.cuda.set_device(models.own_gpu())
            card = torch.cuda.get_device_properties(models.own_gpu()).uuid
            cards = set(self.gather(f"{socket.gethostname()} {card}"))
            if len(cards) < self.count:
                raise UsageError(
                    f"{self.count} processes for {len(cards)} GPUs: NCCL wants a GPU for each "
                    "process. Start at most as many on a machine as it has GPUs."
                )
        dist.init_process_group(
            self.backend, store=self.store, rank=self.rank, world_size=self.count, timeout=PATIENCE
        )

    def gather(self, fact) -> list:
        """The JSON values that all processes give, in the order of ranks.

        Over the key-value store in which they met, which also works between different versions.
        """
        if self.count == 1:
            return [fact]
        self.asked += 1
        name = f"question {self.asked}"
        self.store.set(f"{name} {self.rank}", json.dumps(fact))
        everyone = [json.loads(self.store.get(f"{name} {n}")) for n in range(self.count)]
        self.store.add(name, 1)
        while self.rank == 0 and self.store.add(name, 0) < self.count:
            time.sleep(0.01)  # process 0 may keep the store, and stays until all have read
        return everyone

    def first(self, fact):
        """The value that process 0 gives."""
        return self.gather(fact)[0]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.gather(None)

    def require_same(self, **facts) -> None:
        """Raise CourseError, in all processes, when `facts` are not the same in all of them."""
        everyone = self.gather(facts)
        found = []
        for name in sorted(set().union(*everyone)):
            values = [str(facts.get(name)) for facts in everyone]
            others = [n for n, value in enumerate(values) if value != values[0]]
            if others:
                n = others[0]
                found.append(f"{name} (process 0: {values[0]}, process {n}: {values[n]})")
        if found:
            raise CourseError(
                f"the processes do not run the same training; they differ in {', '.join(found)}. "
                "Nothing was trained. Every machine needs the same checkout, packages "
                "(requirements.lock), options and rows."
            )

    def says_it_first(self, text: str) -> bool:
        """Whether this process is the first to say `text`; the others keep quiet."""
        try:
            key = hashlib.sha256(text.encode()).hexdigest()
            return self.store is None or self.store.add(key, 1) == 1
        except RuntimeError:  # process 0 keeps the board and has gone
            return True


def code() -> str:
    """Eight hex digits of the package's modules and tables."""
    folder = ROOT / "helpers"
    found = [p for kind in ("*.py", "*.toml", "*.csv") for p in sorted(folder.rglob(kind))]
    return hash_files(found, ROOT) + f" on Python {platform.python_version()}"


def explained(problem: Exception) -> CourseError | None:
    """What an error of torch.distributed means for a person; None for another kind of error."""
    if isinstance(problem, CourseError):
        return problem
    text = str(problem)
    if not (isinstance(problem, dist.DistError) or "gloo" in text or "NCCL" in text):
        return None
    return CourseError(
        "another process of this training has ended or answers no more, so all of them stop "
        f"({first_line(problem)[:200]}). What it said stands above. --resume goes on from the "
        "newest checkpoint that is whole."
    )
