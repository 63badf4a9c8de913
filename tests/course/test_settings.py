"""Device, profiles and paths: what is chosen, what is refused, and with which words."""

import json
import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import GatedRepoError

from helpers import course, settings
from helpers.files import UsageError, read_json, read_toml
from helpers.settings import Device
from pipeline import cloud

TABLES = read_toml(Path(__file__).with_name("cases.toml"))
HEAD = "Title,Ingredients,Steps\n"


# --- the device


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
    card = SimpleNamespace(name="Kartu", total_memory=12 << 30, major=8, minor=6)
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
    "probe, said",
    [
        ("raise RuntimeError('CUDA error: no kernel image\\nCompile with')", "no kernel image;"),
        ("import os; os._exit(3)", "exit 3"),
    ],
)
def test_a_card_that_torch_cannot_compute_on_is_refused_before_anything_runs(machine, probe, said):
    assert machine(probe).kind == "cpu"
    with pytest.raises(UsageError, match=f"tidak bisa menghitung .*{said}.*get-started"):
        settings.load("rtx3060")
    found = settings.load("auto")
    assert found.device.kind == "cpu"
    assert said in found.reason


@pytest.mark.parametrize("capability, dtype", [((7, 5), "float16"), ((8, 6), "bfloat16")])
def test_an_older_card_computes_in_fp16_whatever_its_profile_names(cfg, capability, dtype):
    device = Device("cuda", "Kartu", 12, capability)
    assert settings.dtype_name(replace(cfg, compute_dtype="bfloat16", device=device)) == dtype


@pytest.mark.parametrize("listed, products", TABLES["bf16_products"])
def test_what_a_processor_multiplies_is_what_linux_lists(listed, products, monkeypatch):
    monkeypatch.setattr(settings.Path, "is_file", lambda path: bool(listed))
    monkeypatch.setattr(settings.Path, "read_text", lambda path: listed)
    assert settings.bf16_products() is products


# --- the profile


@pytest.mark.parametrize("name, memory, profile", TABLES["largest_profile"])
def test_the_largest_profile_that_the_hardware_holds_is_chosen(name, memory, profile, monkeypatch):
    monkeypatch.setattr(settings, "bf16_products", lambda: True)
    assert settings.profile_for(Device("cuda", name, memory), settings.profiles()) == profile


@pytest.mark.parametrize(
    "products, profile, dtype", [(True, "cpu", "bfloat16"), (False, "cpu-plain", "float32")]
)
def test_a_processor_without_bf16_products_computes_in_fp32(products, profile, dtype, monkeypatch):
    monkeypatch.setattr(settings, "bf16_products", lambda: products)
    monkeypatch.setattr(settings, "find_device", lambda: Device("cpu", "CPU", 16))
    cfg = settings.load("auto")
    assert cfg.profile == profile
    assert settings.dtype_name(cfg) == dtype


def test_the_card_of_12_gb_trains_as_chef_ai_did():
    assert TABLES["chef_ai"].items() <= settings.profiles()["rtx3060"].items()


def test_a_card_that_is_too_small_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setattr(settings, "find_device", lambda: Device("cuda", "GTX 1650", 4))
    with pytest.raises(UsageError, match="memerlukan GPU CUDA 12 GB, yang ada: GTX 1650, 4.0 GB"):
        settings.load("rtx3060")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"profile": "cpuu"}, "pilihannya: auto, sanity, cpu"),
        ({"language": "de"}, "language 'de' tidak dikenal"),
        ({"base_model": "./nowhere"}, "bukan folder, tidak ada di cache lokal"),
        ({"seed": -1}, "seed -1 tidak dikenal"),
        ({"seed": 2**32}, "seed 4294967296 tidak dikenal"),
    ],
)
def test_bad_settings_are_refused_with_what_was_expected(arguments, message):
    with pytest.raises(UsageError, match=message):
        settings.load(**{"profile": "sanity"} | arguments)


# --- the base model


def test_an_unreachable_base_model_falls_back_to_the_packaged_one_and_says_so(monkeypatch):
    monkeypatch.setattr(settings, "find_device", lambda: Device("cuda", "RTX 3070", 7.8))
    cfg = settings.load("auto", "en")
    assert (cfg.profile, cfg.base_model) == ("gpu-8gb", "packaged")
    assert cfg.reason == "RTX 3070 (8 GB), auto: gpu-8gb; Qwen/Qwen3-1.7B -> packaged"


def test_a_model_in_the_hubs_cache_is_taken_without_a_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", tmp_path)
    cache = tmp_path / "models--owner--cached"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("b" * 40)
    snapshot = cache / "snapshots" / ("b" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert settings.base_model_for(None, "owner/cached") == "owner/cached"


def test_no_other_model_takes_the_place_of_a_gated_one(monkeypatch):
    def refuse(*arguments, **options):
        raise GatedRepoError("403", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(UsageError, match="setujui lisensi owner/gated"):
        settings.base_model_for(None, "owner/gated")


# --- the data and the folder for results


def test_what_is_not_given_comes_from_the_environment(tmp_path, monkeypatch):
    """Also with a "~" that no shell has replaced, as out of a .env file."""
    (tmp_path / "a.csv").write_text(HEAD)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("DATA_DIR", "BASE_MODEL", "DAPUR_ARTIFACTS"):
        monkeypatch.setenv(name, "~")
    cfg = settings.load("cpu")
    assert cfg.data_dir == cfg.artifacts_root == tmp_path
    assert not cfg.own_data
    assert cfg.base_model == str(tmp_path)
    assert cfg.licence == "see the model's page"
    assert settings.load("cpu", base_model="packaged").base_model == "packaged"


@pytest.mark.parametrize("folder", [settings.ROOT / "docs", "/no/such/folder"])
def test_a_folder_without_tables_is_refused(folder, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(folder))
    with pytest.raises(UsageError, match="bukan folder yang berisi berkas .csv"):
        settings.load("cpu")


def test_reports_name_every_setting_but_no_path_of_this_machine(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(HEAD)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    cfg = settings.load("sanity", base_model=str(tmp_path))
    told = cfg.as_dict()
    assert str(tmp_path) not in json.dumps(told)
    assert told["base_model"] == told["data"] == tmp_path.name
    assert (told["profile"], told["rank"]) == ("sanity", cfg.rank)


def test_the_hand_over_folder_follows_what_makes_results_differ(tmp_path, monkeypatch):
    def key(**arguments):
        return settings.load("sanity", **arguments).key

    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    (tmp_path / "a.csv").write_text(HEAD)
    keys = [key(), key(seed=1)]
    for place in ("here", "there"):  # two models of one name
        model = tmp_path / place / "model"
        model.mkdir(parents=True)
        keys.append(key(base_model=str(model)))
    (tmp_path / "a.csv").write_text(HEAD + "x,y--z,w\n")
    keys.append(key())
    (tmp_path / "a.csv").rename(tmp_path / "B.CSV")  # a file's name is its recipes' category
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_the_hand_over_folder_stays_where_results_do_not_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    (tmp_path / "a.csv").write_text(HEAD)
    key = settings.load("sanity", "id").key
    (tmp_path / "notes.txt").write_text("Not a recipe, so no other data.")
    assert settings.load("sanity", "en").key == key, "the language shown is not learnt"


def test_of_recipes_in_two_languages_the_translation_is_learnt_that_is_asked_for():
    usual = [settings.load("sanity", language) for language in settings.LANGUAGES]
    assert [cfg.task for cfg in usual] == ["id-en", "id-en"]
    assert settings.load("sanity", "id", "en-id").recipes_dir == settings.OWN / "en"


def test_of_recipes_in_two_languages_those_of_the_language_shown_are_written():
    one, two = (settings.load("sanity", language, "recipe") for language in settings.LANGUAGES)
    assert (one.data_language, two.data_language) == ("id", "en")
    assert one.key != two.key


def test_recipes_of_one_language_teach_no_translation(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(HEAD + "Soto,ayam--garam,Rebus ayam dan garam sampai empuk.\n")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    cfg = settings.load("sanity", "en")
    assert (cfg.task, cfg.data_language) == ("recipe", "id")
    with pytest.raises(UsageError, match="id/ and en/"):
        settings.load("sanity", "en", "id-en")


def test_files_come_by_name_and_hidden_copies_are_passed_over(tmp_path):
    hidden = [".x/a.csv", "__MACOSX/a.csv", ".a.csv", "d/~$a.csv"]
    for name in ["b.csv", "a.csv", "c.CSV", "d/a.csv", "a.txt", *hidden]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(HEAD)
    found = [path.relative_to(tmp_path).as_posix() for path in settings.csv_files(tmp_path)]
    assert found == ["a.csv", "b.csv", "c.CSV", "d/a.csv"]
    named = tmp_path / ".x"
    assert settings.csv_files(named) == [named / "a.csv"], "a folder that is named is read"


def test_a_folder_that_cannot_be_read_is_no_silent_loss(tmp_path, monkeypatch):
    """Simulated, because tests may run as root."""

    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", "x/closed"))

    monkeypatch.setattr(settings.os, "walk", walk)
    with pytest.raises(PermissionError, match="x/closed"):
        settings.csv_files(tmp_path)


# --- a lesson and its installation


def test_a_lesson_begins_with_its_parameters_and_keeps_its_last_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    cfg = course.start("00_start", "sanity", "en", "en-id", 7, True)
    assert (cfg.profile, cfg.language, cfg.task, cfg.seed) == ("sanity", "en", "en-id", 7)
    course.record("ended", 0.9, n=3)
    course.record("ended", 0.8)
    (row,) = read_json(cfg.artifacts / "results" / "00_start.json")
    assert (row["name"], row["value"], row["n"]) == ("ended", 0.8, None)


def test_a_number_that_is_not_finite_is_not_recorded():
    with pytest.raises(ValueError, match="finite"):
        course.record("broken", float("nan"))


def test_a_cloud_keeps_its_own_torch_and_its_notebook_page():
    assert any(pin.startswith("torch==") for pin in cloud.constraints())
    wanted = cloud.requirements()
    assert any(line.startswith("peft>=") for line in wanted)
    assert not [line for line in wanted if line.startswith(("jupyterlab", "trl", "pytest", "#"))]
