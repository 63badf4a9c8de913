"""Bytes of live tensors, exactly: the processor's stand-in for CUDA's allocator statistics."""

from __future__ import annotations

import weakref
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import measure


class TensorMeter(TorchDispatchMode):
    """Counts the storage of every tensor that is created inside the `with` block and still alive.

    with TensorMeter() as meter:
        with meter.phase("forward"): loss = ...
        with meter.phase("backward"): loss.backward()
    meter.live, meter.peak          # bytes now and at most; tensors that existed before do not count
    meter.peaks["backward"]         # most bytes alive during a phase

    Views share a storage and count once. Scratch memory inside a kernel is not seen. Works on any device whose
    operations run in this thread; on the CPU that includes the backward pass.
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
        key = storage._cdata
        if key in self._known or key in given:
            return
        size = storage.nbytes()
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
    """The same interface on CUDA, where the allocator itself keeps count; what was there before does not count either."""

    def __init__(self):
        self.peak, self.peaks, self._start = 0, {}, 0

    def __enter__(self):
        self._start = measure.cuda().memory_allocated()
        return self

    def __exit__(self, *error):
        pass

    @property
    def live(self) -> int:
        return measure.cuda().memory_allocated() - self._start

    @contextmanager
    def phase(self, name: str):
        measure.cuda().reset_peak_memory_stats()
        try:
            yield self
        finally:
            self.peaks[name] = max(
                self.peaks.get(name, 0), measure.cuda().max_memory_allocated() - self._start
            )
            self.peak = max(self.peak, self.peaks[name])


def meter() -> TensorMeter | AllocatorMeter:
    """What counts bytes on this machine: CUDA's allocator, or the tensors themselves on a processor."""
    return AllocatorMeter() if measure.cuda() else TensorMeter()


def stored_bytes(model) -> int:
    """Bytes that a model's parameters take, constants of 4-bit weights included; shared storage counts once."""
    tensors = list(model.parameters())
    for state in (getattr(p, "quant_state", None) for p in model.parameters()):
        if state is not None:
            tensors += [state.absmax, state.code]
            if state.nested:
                tensors += [state.state2.absmax, state.state2.code, state.offset]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )
