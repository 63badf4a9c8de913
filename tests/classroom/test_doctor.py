"""A machine broken in one way each time: doctor names it, says what to do, and nothing else.

The machine is faked where Python meets it: disk, memory, packages, the GPU.
"""

import dataclasses
import os
import shutil
import sys
from types import SimpleNamespace

import psutil
import pytest

from helpers.settings import Device
from pipeline import __main__ as commands
from pipeline import doctor

GB = 10**9
CPU = Device("cpu", "CPU, 2 cores", 8.0)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A sound laptop without an NVIDIA card, on which the course is installed as it should be."""
    ram = SimpleNamespace(total=8 * GB, available=6 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: ram)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50 * GB))
    monkeypatch.setattr(doctor, "find_device", lambda: CPU)
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path / "artifacts"))
    return monkeypatch


def full_disk(patch):
    patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1.2 * GB))


def read_only(patch):
    patch.setattr(os, "access", lambda path, mode: False)


def little_memory(patch):
    ram = SimpleNamespace(total=4 * GB, available=1.1 * GB)
    patch.setattr(psutil, "virtual_memory", lambda: ram)


def no_torch(patch):
    patch.setitem(sys.modules, "torch", None)


def unused_card(patch):
    note = "RTX 3060 is there, but the installed torch has no CUDA"
    patch.setattr(doctor, "find_device", lambda: dataclasses.replace(CPU, note=note))


def no_model(patch):
    patch.setattr(doctor, "EMBEDDED_MODEL", "llm-other==1")


def other_version(patch, found="0.1"):
    versions = doctor.versions() | {"peft": found}
    patch.setattr(doctor, "versions", lambda: versions)


def no_package(patch):
    other_version(patch, "")


BROKEN = [  # what broke, the problem's name, whether it stops the course, words of text and advice
    (full_disk, "disk", True, "1.2 GB", "DAPUR_ARTIFACTS"),
    (read_only, "folder", True, "", "USB"),
    (little_memory, "memory", True, "1.1", "--profile sanity"),
    (no_torch, "torch", True, "", "--force-reinstall"),
    (unused_card, "gpu", False, "RTX 3060", "CUDA_VISIBLE_DEVICES=-1"),
    (no_model, "model", True, "", "--no-deps llm-other=="),
    (other_version, "packages", False, "peft 0.1", "install -r requirements.lock"),
    (no_package, "packages", True, "peft", "install -r requirements.lock"),
]


@pytest.mark.parametrize("break_it, name, stops, word, advice", BROKEN)
def test_each_broken_machine_is_named_with_what_to_do(machine, break_it, name, stops, word, advice):
    assert doctor.find_problems() == []
    break_it(machine)
    found = doctor.find_problems()
    assert {one["name"] for one in found} == {name}
    for one in found:
        assert one["stops"] is stops and word in one["what"] and advice in one["advice"]


def test_the_command_ends_with_1_only_when_the_course_cannot_run(machine, capsys):
    def call():
        with pytest.raises(SystemExit) as left:
            commands.main(["doctor", "--language", "en"], commands.app)
        return left.value.code, capsys.readouterr().out

    unused_card(machine)
    code, told = call()
    assert code == 0 and "the GPU is not used" in told
    little_memory(machine)
    code, told = call()
    assert code == 1
    assert told.index("✗ memory:") < told.index("! gpu:"), "what stops the course comes first"
