"""Device memory: CUDA, or the process when there is none, behind one interface."""

from __future__ import annotations

import os
import sys

import psutil


def cuda():
    """torch.cuda if torch is loaded and sees a GPU, else None. Never imports torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def used_gb() -> float:
    """Memory now in GB: allocated on the GPU, or this process's resident set."""
    gpu = cuda()
    return gpu.memory_allocated() / 1e9 if gpu else psutil.Process(os.getpid()).memory_info().rss / 1e9
