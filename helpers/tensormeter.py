"""Bytes of live tensors: CUDA's allocator statistics, and their stand-in on a processor."""

from __future__ import annotations

import weakref
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import memory


class TensorMeter(TorchDispatchMode):
    """Counts the storage of every tensor that is created inside the `with` block and still alive.

    with TensorMeter() as found:
        with found.phase("forward"): loss = ...
        with found.phase("backward"): loss.backward()
    found.live, found.peak          # bytes now and at most; what existed before does not count
    found.peaks["backward"]         # most bytes alive during a phase

    Views share a storage and count once. Scratch memory inside a kernel is not seen.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.peaks: dict[str, int] = {}
        self._known: set[int] = set()
        self._phase: str | None = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {
            t.untyped_storage()._cdata
            for t in tree_leaves((args, kwargs))
            if isinstance(t, torch.Tensor)
        }
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self._add(tensor.untyped_storage(), given)
        return result

    def _add(self, storage, given: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in given:
            return
        self._known.add(key)
        weakref.finalize(storage, self._drop, key, size)
        self.live += size
        self.peak = max(self.peak, self.live)
        if self._phase is not None:
            self.peaks[self._phase] = max(self.peaks[self._phase], self.live)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    @contextmanager
    def phase(self, name: str):
        """Keep the most bytes alive inside the block under `peaks[name]`."""
        before, self._phase = self._phase, name
        self.peaks[name] = max(self.peaks.get(name, 0), self.live)
        try:
            yield self
        finally:
            self._phase = before


class AllocatorMeter:
    """The same on CUDA, whose allocator keeps count; what was there before does not count."""

    def __enter__(self):
        self.peaks, self._start = {}, memory.cuda().memory_allocated()
        return self

    def __exit__(self, *error):
        pass

    @property
    def live(self) -> int:
        return memory.cuda().memory_allocated() - self._start

    @property
    def peak(self) -> int:
        return max(self.peaks.values(), default=0)

    @contextmanager
    def phase(self, name: str):
        memory.cuda().reset_peak_memory_stats()
        try:
            yield self
        finally:
            most = memory.cuda().max_memory_allocated() - self._start
            self.peaks[name] = max(self.peaks.get(name, 0), most)


def meter() -> TensorMeter | AllocatorMeter:
    """What counts tensor bytes on this machine: CUDA's allocator, or each tensor's own storage."""
    return AllocatorMeter() if memory.cuda() else TensorMeter()


def stored_bytes(model) -> int:
    """Bytes of a model's parameters, constants of 4-bit weights included; shared storage once."""
    tensors = list(model.parameters())
    for state in (getattr(p, "quant_state", None) for p in model.parameters()):
        if state is not None:
            tensors += [state.absmax, state.code]
            if state.nested:
                tensors += [state.state2.absmax, state.state2.code, state.offset]
    storages = [t.untyped_storage() for t in tensors]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())
