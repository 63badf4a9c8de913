"""Device, profiles and paths: what is chosen, what is refused, and with which words."""

import importlib.metadata
import json
import os
import runpy
import subprocess
import sys
import threading
import tomllib
import types
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from helpers import course, settings
from helpers.files import UsageError, read_json
from helpers.settings import Device
from pipeline import cloud, doctor

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

TASKS = ("auto", "id-en", "en-id", "recipe")
HEAD = "Title,Ingredients,Steps\n"


@pytest.fixture
def machine(monkeypatch):
    """machine(code): find_device where a driver is installed; `code` stands for helpers.card."""

    def find(code):
        settings.find_device.cache_clear()
        monkeypatch.setattr(settings, "PROBE", [sys.executable, "-c", code])
        monkeypatch.setattr(settings.shutil, "which", lambda name: name)
        return settings.find_device()

    return find


def test_the_gpu_that_torch_tells_of_is_taken(machine):
    found = machine("print('[\"Kartu\", 12884901888, [8, 6]]')")
    assert found == Device("cuda", "Kartu", 12, (8, 6))
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "torch counts as the driver does"


def test_the_card_is_told_as_torch_has_it(monkeypatch, capsys):
    card = types.SimpleNamespace(name="Kartu", total_memory=12 << 30, major=8, minor=6)
    monkeypatch.setattr("torch.ones", lambda n, device: torch.zeros(n))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: card)
    runpy.run_module("helpers.card")
    assert json.loads(capsys.readouterr().out) == ["Kartu", 12 << 30, [8, 6]]


def test_a_machine_without_a_driver_says_nothing(monkeypatch):
    settings.find_device.cache_clear()
    monkeypatch.setenv("PATH", "")
    found = settings.find_device()
    assert (found.kind, found.note) == ("cpu", "")


@pytest.mark.parametrize(
    "probe, said", TABLES["a_card_that_torch_cannot_compute_on_is_refused_before_anything_runs"]
)
def test_a_card_that_torch_cannot_compute_on_is_refused_before_anything_runs(machine, probe, said):
    found = machine(probe)
    assert found.kind == "cpu" and said in found.note
    with pytest.raises(UsageError, match=f"cannot compute .*{said}.*get-started"):
        settings.load("rtx3060")
    found = settings.load("auto")
    assert found.device.kind == "cpu" and said in found.reason


def test_an_older_card_computes_in_fp16_whatever_its_profile_names(cfg):
    for capability, dtype in (((7, 5), "float16"), ((8, 6), "bfloat16")):
        device = Device("cuda", "Kartu", 12, capability)
        made = replace(cfg, compute_dtype="bfloat16", device=device)
        assert settings.dtype_name(made) == dtype


@pytest.mark.parametrize(
    "name, memory, profile", TABLES["the_largest_profile_that_the_hardware_holds_is_chosen"]
)
def test_the_largest_profile_that_the_hardware_holds_is_chosen(name, memory, profile, monkeypatch):
    table = settings.profiles()
    monkeypatch.setattr(settings, "bf16_products", lambda: True)
    assert settings.profile_for(Device("cuda", name, memory), table) == profile
    assert settings.profile_for(Device("cpu", name, memory), table) == "cpu"


@pytest.mark.parametrize("products, profile", [(True, "cpu"), (False, "cpu-plain")])
def test_a_processor_without_bf16_products_practises_less_in_fp32(products, profile, monkeypatch):
    monkeypatch.setattr(settings, "bf16_products", lambda: products)
    monkeypatch.setattr(settings, "find_device", lambda: Device("cpu", "CPU", 16))
    cfg = settings.load("auto")
    assert cfg.profile == profile
    assert settings.dtype_name(cfg) == ("bfloat16" if products else "float32")
    table = settings.profiles()
    assert 0 < table["cpu-plain"]["max_train_rows"] < table["cpu"]["max_train_rows"]


@pytest.mark.parametrize(
    "listed, products",
    [
        ("vendor_id : AuthenticAMD\nflags : sse2 avx2 avx512f avx512_bf16\n", True),
        ("vendor_id : GenuineIntel\nflags : sse2 avx2 avx512f avx512_bf16\n", False),
        ("flags : sse2 avx2 amx_bf16 amx_tile\n", True),
        ("Features : fp asimd bf16\n", True),
        ("flags : sse2 avx2 avx512f\n", False),
        ("", False),
    ],
)
def test_what_a_processor_multiplies_is_what_linux_lists(listed, products, monkeypatch):
    monkeypatch.setattr(settings.Path, "is_file", lambda path: bool(listed))
    monkeypatch.setattr(settings.Path, "read_text", lambda path: listed)
    assert settings.bf16_products() is products


def test_the_card_of_12_gb_trains_as_chef_ai_did():
    chef = {"rank": 8, "alpha": 16, "dropout": 0.05, "max_length": 512, "batch": 1}
    chef |= {"accumulation": 4, "learning_rate": 2e-4, "max_grad_norm": 0.3, "patience": 3}
    chef |= {"targets": ["q_proj", "v_proj"], "base_model": "Qwen/Qwen2-7B-Instruct"}
    assert chef.items() <= settings.profiles()["rtx3060"].items()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"profile": "cpuu"}, "expected one of: auto, sanity, cpu"),
        ({"language": "de"}, "unknown language 'de'"),
        ({"task": "id-fr"}, "unknown task"),
        ({"base_model": "./nowhere"}, "is no folder, not in the local cache"),
    ],
)
def test_bad_settings_are_refused_with_what_was_expected(arguments, message):
    with pytest.raises(UsageError, match=message):
        settings.load(**{"profile": "sanity"} | arguments)


def test_a_machine_that_is_too_small_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setattr(settings, "find_device", lambda: Device("cpu", "CPU", 16))
    with pytest.raises(UsageError, match="needs a CUDA GPU with 12 GB"):
        settings.load("rtx3060")
    monkeypatch.setattr(settings, "find_device", lambda: Device("cuda", "GTX 1650", 4))
    with pytest.raises(UsageError, match="needs a CUDA GPU with 12 GB, found: GTX 1650, 4.0 GB"):
        settings.load("rtx3060")


def test_what_is_not_given_comes_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(HEAD)
    for name in ("DATA_DIR", "BASE_MODEL", "DAPUR_ARTIFACTS"):
        monkeypatch.setenv(name, str(tmp_path))
    cfg = settings.load("cpu")
    assert cfg.data_dir == cfg.artifacts_root == tmp_path and cfg.base_model == str(tmp_path)
    assert cfg.licence == "see the model's page" and not cfg.own_data
    assert settings.load("cpu", base_model="packaged").base_model == "packaged"
    for folder in (settings.ROOT / "docs", "/no/such/folder"):
        monkeypatch.setenv("DATA_DIR", str(folder))
        with pytest.raises(UsageError, match="is no folder that holds a .csv"):
            settings.load("cpu")


def test_reports_name_every_setting_but_no_path_of_this_machine(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(HEAD)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    cfg = settings.load("sanity", base_model=str(tmp_path))
    told = cfg.as_dict()
    assert str(tmp_path) not in json.dumps(told) and told["base_model"] == tmp_path.name
    assert (told["profile"], told["rank"], told["data"]) == ("sanity", cfg.rank, tmp_path.name)


def test_an_unreachable_base_model_falls_back_to_the_packaged_one_and_says_so(monkeypatch):
    monkeypatch.setattr(settings, "find_device", lambda: Device("cuda", "RTX 3070", 7.8))
    cfg = settings.load("auto", "en")
    assert (cfg.profile, cfg.base_model) == ("gpu-8gb", "packaged")
    automatic = "RTX 3070 (8 GB), auto: gpu-8gb"
    assert cfg.reason == f"{automatic}; Qwen/Qwen3-1.7B -> packaged"
    assert settings.load("gpu-8gb", "en").reason == cfg.reason, "however its name came"


def test_the_hand_over_folder_follows_what_makes_results_differ(tmp_path, monkeypatch):
    def key(**arguments):
        return settings.load("sanity", **arguments).key

    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    (tmp_path / "a.csv").write_text(HEAD)
    (tmp_path / "notes.txt").write_text("Not a recipe, so no other data.")
    keys = [key(), key(seed=1)]
    (tmp_path / "a.csv").write_text(HEAD + "x,y--z,w\n")
    keys.append(key())
    assert key(language="en") == keys[-1], "the language shown is not learnt"
    (tmp_path / "a.csv").rename(tmp_path / "B.CSV")  # a file's name is its recipes' category
    keys.append(key())
    for place in ("here", "there"):  # two models of one name
        (tmp_path / place / "model").mkdir(parents=True)
        keys.append(key(base_model=str(tmp_path / place / "model")))
    assert len(set(keys)) == len(keys)


def test_what_is_learnt_follows_the_languages_of_the_data(tmp_path, monkeypatch):
    own = [settings.load("sanity", language, task) for language in ("id", "en") for task in TASKS]
    assert [cfg.task for cfg in own] == ["id-en", "id-en", "en-id", "recipe"] * 2
    assert own[0].key == own[4].key and own[3].key != own[7].key, "recipes are of one language"
    assert (own[2].recipes_dir, own[2].twins_dir) == (settings.OWN / "en", settings.OWN / "id")
    (tmp_path / "a.csv").write_text(HEAD + "Soto,ayam--garam,Rebus ayam dan garam sampai empuk.\n")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    cfg = settings.load("sanity", "en")
    assert (cfg.task, cfg.data_language) == ("recipe", "id")
    with pytest.raises(UsageError, match="id/ and en/"):
        settings.load("sanity", "en", "id-en")


def test_files_come_by_name_and_hidden_copies_are_passed_over(tmp_path):
    hidden = (".x/a.csv", "__MACOSX/a.csv", ".a.csv", "d/~$a.csv")
    for name in ("b.csv", "a.csv", "c.CSV", "d/a.csv", "a.txt", *hidden):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(HEAD)
    found = [path.relative_to(tmp_path).as_posix() for path in settings.csv_files(tmp_path)]
    assert found == ["a.csv", "b.csv", "c.CSV", "d/a.csv"]


def test_a_folder_that_cannot_be_read_is_no_silent_loss(tmp_path, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", "x/closed"))

    monkeypatch.setattr(settings.os, "walk", walk)
    with pytest.raises(PermissionError, match="x/closed"):
        settings.csv_files(tmp_path)


def test_a_lesson_begins_with_its_parameters_and_keeps_its_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    cfg = course.start("00_start", "sanity", "en", "en-id", 7, True)
    course.record("ended", 0.9, n=3)
    course.record("ended", 0.8)
    with pytest.raises(ValueError, match="finite"):
        course.record("broken", float("nan"))
    course.start_records("scratch")
    found = (cfg.profile, cfg.language, cfg.task, cfg.seed)
    assert found == ("sanity", "en", "en-id", 7)
    (row,) = read_json(cfg.artifacts / "results" / "00_start.json")
    assert (row["notebook"], row["name"], row["value"], row["n"]) == (
        "00_start",
        "ended",
        0.8,
        None,
    )


class Hub(BaseHTTPRequestHandler):
    """A hub on this machine that has an open model and a gated one."""

    def do_HEAD(self):
        status, code = {"open": (200, ""), "gated": (403, "GatedRepo")}.get(
            self.path.split("/")[2], (404, "")
        )
        self.send_response(status)
        for name, value in {"ETag": '"1"', "X-Repo-Commit": "a" * 40, "X-Error-Code": code}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


def asked(model, tmp_path, **environment):
    """The base model taken, in a process of its own: the hub's settings are read once."""
    code = (
        "import sys\nfrom helpers import settings\n"
        "try:\n    print(settings.base_model_for(None, sys.argv[1]))\n"
        "except settings.UsageError as problem:\n    print(problem)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    values = clean | {"HF_HOME": str(tmp_path)} | environment
    command = [sys.executable, "-c", code, model]
    return subprocess.run(command, cwd=settings.ROOT, env=values, capture_output=True, text=True)


def test_a_model_is_looked_for_in_the_hubs_cache_and_at_the_hub(tmp_path):
    cache = tmp_path / "hub" / "models--owner--cached"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("b" * 40)
    (cache / "snapshots" / ("b" * 40)).mkdir(parents=True)
    (cache / "snapshots" / ("b" * 40) / "config.json").write_text("{}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    words = {"cached": "owner/cached", "open": "owner/open", "none": "packaged"}
    words["gated"] = "accept the licence"
    for name, said in words.items():
        done = asked(f"owner/{name}", tmp_path, **there)
        assert said in done.stdout, (name, done.stdout, done.stderr)
    server.shutdown()


def test_a_cloud_keeps_its_own_torch_and_its_notebook_page():
    assert any(pin.startswith("torch==") for pin in cloud.constraints())
    wanted = cloud.requirements()
    assert any(line.startswith("peft>=") for line in wanted)
    assert not [line for line in wanted if line.startswith(("jupyterlab", "trl", "pytest", "#"))]


def test_half_an_installation_is_told_and_breaks_nothing(tmp_path, monkeypatch):
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info" / "METADATA").write_text("Version: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.versions()["torch"] and any(
        pin.startswith("torch==") for pin in cloud.constraints()
    )
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    assert [found["name"] for found in doctor.model()] == ["model"]
