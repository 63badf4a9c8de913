"""What test_distributed.py runs under torchrun: trainings one after the other, some with a fault.

Arguments: a JSON list of [fault, words of the command]. A fault is process 1's alone.
"""

import dataclasses
import json
import os
import sys

import torch
import torch.distributed as dist

from helpers.course import settings
from helpers.training import checkpoints, distributed

WINDOWS = "torchrun asks for libuv, which torch's wheels for Windows come without"
usual_load, usual_versions, usual_save = settings.load, checkpoints.versions, torch.save
usual_chats = distributed.chats


def load(*args, **kwargs):
    """Settings with two rows at once and four such batches in an update."""
    return dataclasses.replace(usual_load(*args, **kwargs), batch=2, accumulation=4)


def other_version():
    """What another installation has."""
    return usual_versions() | {"transformers": "4.0.0"}


def other_rows(cfg):
    """What a machine with another file of lesson 02 reads; as many as the others."""
    return {name: some[::-1] for name, some in usual_chats(cfg).items()}


def die_at_the_second_save(value, path, *rest, **more):
    """End in the middle of the second checkpoint, as the process of a machine that is lost."""
    if str(path).endswith("checkpoint-2/rng_state_1.pth"):
        os._exit(9)
    return usual_save(value, path, *rest, **more)


def main():
    rank, settings.load = os.environ["RANK"], load
    for fault, words in json.loads(sys.argv[1]):
        faulty = fault if rank == "1" else ""
        checkpoints.versions = other_version if faulty == "version" else usual_versions
        distributed.chats = other_rows if faulty == "rows" else usual_chats
        torch.save = die_at_the_second_save if faulty == "death" else usual_save
        try:
            distributed.main(words)
        except SystemExit as left:
            print(f"process {rank}, {fault}: exit code {left.code}", flush=True)
            if dist.is_initialized():  # a process of its own would end with it
                dist.destroy_process_group()


if __name__ == "__main__":
    main()
