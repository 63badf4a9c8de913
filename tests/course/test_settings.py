"""Profiles and paths: what is chosen, what is refused, and with which words."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from helpers import course, planner, settings
from helpers.files import UsageError, read_json
from tests.course.test_house import ROOMS


def gpu(name, memory, capability=(8, 6)):
    return settings.Device("cuda", name, memory, capability)


@pytest.mark.parametrize(
    "device, profile",
    [
        (settings.Device("cpu", "CPU", 16), "cpu"),
        (gpu("GTX 1050", 2.0), "cpu"),
        (gpu("GTX 1650", 3.9), "gpu-4gb"),
        (gpu("RTX 2060", 5.8), "gpu-6gb"),
        (gpu("RTX 3070", 7.8), "gpu-8gb"),
        (gpu("RTX 3080", 9.8), "gpu-10gb"),
        (gpu("NVIDIA GeForce RTX 3060", 11.6), "rtx3060"),
        (gpu("RTX 4080", 15.7), "gpu-16gb"),
        (gpu("RTX 4090", 23.5, (8, 9)), "gpu-24gb"),
        (gpu("NVIDIA H200", 139.0, (9, 0)), "gpu-24gb"),
        (gpu("Tesla T4", 14.6, (7, 5)), "colab-t4"),
        (gpu("NVIDIA T400 4GB", 3.9, (7, 5)), "gpu-4gb"),
        (gpu("GRID T4-8Q", 7.9, (7, 5)), "gpu-8gb"),
    ],
)
def test_the_largest_profile_that_the_hardware_holds_is_chosen(device, profile):
    assert settings.profile_for(device, settings.profiles()) == profile


def test_every_profile_names_all_settings_and_a_licence():
    needed = {f.name for f in dataclasses.fields(settings.Settings)} - {
        "profile",
        "reason",
        "language",
        "data_language",
        "seed",
        "run_solutions",
        "device",
        "data_dir",
        "artifacts_root",
    }
    for name, values in settings.profiles().items():
        assert needed <= set(values), name
        assert values["licence"]


def test_what_the_measured_figures_rest_on_changes_on_purpose_only():
    values = settings.profiles()
    wanted = {"learning_rate": 2e-3, "scheduler": "cosine", "warmup_steps": 10, "epochs": 3.0}
    wanted |= {"batch": 4, "accumulation": 1, "max_grad_norm": 0.3, "patience": 3, "max_steps": -1}
    wanted |= {"rank": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear", "max_length": 288}
    wanted |= {"max_train_rows": 360, "max_validation_rows": 32, "max_test_rows": 96}
    wanted |= {"evals_per_epoch": 2, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    assert {name: values["cpu"][name] for name in wanted} == wanted
    chef = {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": ["q_proj", "v_proj"]}
    chef |= {"max_length": 512, "batch": 1, "accumulation": 4, "learning_rate": 2e-4}
    chef |= {"max_grad_norm": 0.3, "patience": 3, "base_model": "Qwen/Qwen2-7B-Instruct"}
    assert {name: values["rtx3060"][name] for name in chef} == chef


def test_larger_models_learn_in_smaller_steps():
    sizes = planner.known()
    rows = [row for row in settings.profiles().values() if row["base_model"] != "sanity"]
    rows.sort(key=lambda row: sizes[row["base_model"]].parameters)
    rates = [row["learning_rate"] for row in rows]
    assert rates == sorted(rates, reverse=True) and rates[0] == 2e-3 and rates[-1] == 2e-4
    assert all(row["alpha"] == 2 * row["rank"] for row in rows)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"profile": "cpuu"}, "Did you mean 'cpu'"),
        ({"language": "de"}, "unknown language 'de'"),
        ({"data_language": "fr"}, "unknown data language"),
        ({"data_dir": "/no/such/folder"}, "is not a folder"),
        ({"profile": "sanity", "base_model": "./nowhere"}, "neither a folder nor a hub name"),
    ],
)
def test_bad_settings_are_refused_with_what_was_expected(arguments, message):
    with pytest.raises(UsageError, match=message):
        settings.load(**{"profile": "sanity"} | arguments)


@pytest.mark.parametrize(
    "name, message",
    [
        ("owner/model", "is not in the local cache and the hub does not answer"),
        ("model", "neither a folder nor a hub name"),
        ("a/b/c", "neither a folder nor a hub name"),
    ],
)
def test_a_hub_name_has_one_slash_and_is_told_from_a_missing_folder(monkeypatch, name, message):
    monkeypatch.setattr(settings, "reachable", lambda name: False)
    with pytest.raises(UsageError, match=message):
        settings.load("sanity", base_model=name)


def test_a_profile_for_a_gpu_is_refused_without_one(monkeypatch):
    monkeypatch.setattr(settings, "find_device", lambda: settings.Device("cpu", "CPU", 16))
    with pytest.raises(UsageError, match="needs a CUDA GPU with 12 GB"):
        settings.load("rtx3060")


def test_too_little_memory_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setenv("DAPUR_MIN_RAM_GB", "100000")
    with pytest.raises(UsageError, match="GB of free memory"):
        settings.load("sanity")


@pytest.mark.parametrize("asked", ["2.5", None])
def test_just_enough_memory_is_enough(monkeypatch, asked):
    """As much as the variable asks for, else as the profile does."""
    monkeypatch.delenv("DAPUR_MIN_RAM_GB", raising=False)
    if asked:
        monkeypatch.setenv("DAPUR_MIN_RAM_GB", asked)
    need = round(1e9 * float(asked or settings.profiles()["sanity"]["min_ram_gb"]))
    for free, fine in ((need, True), (need - 1, False)):
        found = SimpleNamespace(available=free, total=16e9)
        monkeypatch.setattr(settings.psutil, "virtual_memory", lambda found=found: found)
        with contextlib.nullcontext() if fine else pytest.raises(UsageError, match="GB of free"):
            settings.load("sanity")


def test_the_licence_is_that_of_the_model_that_is_used(tmp_path):
    own = settings.profiles()["sanity"]["licence"]
    wanted = {None: own, "packaged": "Apache-2.0", str(tmp_path): "see the model's page"}
    assert {name: settings.load("sanity", base_model=name).licence for name in wanted} == wanted


def test_a_data_folder_without_a_csv_is_refused(tmp_path):
    (tmp_path / "recipes.txt").write_text("Title,Ingredients,Steps\n")
    with pytest.raises(UsageError, match="holds no .csv"):
        settings.load("sanity", data_dir=tmp_path)


def test_what_is_not_given_comes_from_the_environment(tmp_path, monkeypatch):
    given, named = tmp_path / "given", tmp_path / "named"
    for folder in (given, named):
        folder.mkdir()
        (folder / "a.csv").write_text("Title,Ingredients,Steps\n")
    for name in ("DATA_DIR", "BASE_MODEL", "DAPUR_ARTIFACTS"):
        monkeypatch.setenv(name, str(named))
    places = {"data_dir": given, "base_model": str(given), "artifacts_root": given}
    for folder, arguments in ((named, {}), (given, places)):
        cfg = settings.load("sanity", **arguments)
        assert cfg.data_dir == cfg.artifacts_root == folder and cfg.base_model == str(folder)


def test_a_run_without_parameters_is_the_one_that_the_notebooks_ask_for():
    notebook = settings.ROOT / "notebooks" / "00_start.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    (cell,) = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    exec("".join(cell["source"]), asked := {})
    cfg, names = settings.load("sanity"), ("language", "seed", "run_solutions")
    assert [getattr(cfg, name) for name in names] == [asked[name.upper()] for name in names]
    assert cfg.data_language == (asked["DATA_LANGUAGE"] or asked["LANGUAGE"])


def test_reports_name_every_setting_but_no_path_of_this_machine(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "a.csv").write_text("Title,Ingredients,Steps\n")
    model = str(tmp_path / "model")
    cfg = settings.load("sanity", base_model=model, data_dir=tmp_path, artifacts_root=tmp_path)
    assert cfg.artifacts == tmp_path / cfg.key
    told = cfg.as_dict()
    assert str(tmp_path) not in json.dumps(told) and told["base_model"] == "model"
    assert (told["profile"], told["seed"], told["rank"]) == ("sanity", cfg.seed, cfg.rank)
    assert (told["data"], told["data_hash"]) == (tmp_path.name, cfg.data_hash)
    assert told["device"] == cfg.device.name


def test_an_unreachable_base_model_falls_back_to_the_packaged_one_and_says_so(monkeypatch):
    monkeypatch.setattr(settings, "find_device", lambda: gpu("RTX 3070", 7.8))
    monkeypatch.setattr(settings, "reachable", lambda name: name == "packaged")
    cfg = settings.load("auto", "en")
    assert (cfg.profile, cfg.base_model) == ("gpu-8gb", "packaged")
    assert "packaged model is used" in cfg.reason


def test_the_reason_of_a_profile_holds_however_its_name_came(monkeypatch):
    """A runner resolves "auto" itself and gives a notebook the profile's name."""
    monkeypatch.setattr(settings, "find_device", lambda: settings.Device("cpu", "CPU", 16))
    chosen = [settings.load(name, "en").reason for name in ("auto", "cpu")]
    assert chosen == ["the automatic choice for CPU (16 GB)"] * 2
    assert settings.load("sanity", "en").reason == "asked for; automatic choice: cpu"
    silent = settings.Device("cpu", "CPU", 16, note="the driver is not running")
    monkeypatch.setattr(settings, "find_device", lambda: silent)
    assert settings.load("auto", "en").reason == f"{chosen[0]}; the driver is not running"


def test_the_hand_over_folder_follows_the_content_and_the_names_of_the_data(tmp_path):
    (tmp_path / "a.csv").write_text("Title,Ingredients,Steps\n")
    first = settings.load("sanity", data_dir=tmp_path).key
    (tmp_path / "a.csv").write_text("Title,Ingredients,Steps\nx,y--z,w\n")
    changed = settings.load("sanity", data_dir=tmp_path).key
    assert first != changed
    assert settings.load("sanity", data_dir=tmp_path, seed=1).key != changed
    assert settings.load("sanity", "en", data_language="id", data_dir=tmp_path).key == changed
    (tmp_path / "a.csv").rename(tmp_path / "b.csv")  # a file's name is its recipes' category
    assert settings.load("sanity", data_dir=tmp_path).key != changed


def test_two_models_of_one_name_hand_over_in_different_folders(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place / "model").mkdir(parents=True)
    keys = [
        settings.load("sanity", base_model=str(tmp_path / place / "model")).key
        for place in ("here", "there")
    ]
    assert keys[0] != keys[1]
    assert all(re.fullmatch(r"sanity-model-[0-9a-f]{6}-own-.*", key) for key in keys)


def test_a_lesson_has_the_settings_of_its_parameters_and_keeps_its_results(tmp_path, monkeypatch):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    cfg = course.start("00_start", "sanity", "en", "id", 7, True)
    course.record("ended", 0.9)
    course.start_records("scratch")
    found = (cfg.profile, cfg.language, cfg.data_language, cfg.seed, cfg.run_solutions)
    assert found == ("sanity", "en", "id", 7, True)
    (row,) = read_json(cfg.artifacts / "results" / "00_start.json")
    assert (row["notebook"], row["name"], row["value"]) == ("00_start", "ended", 0.9)


def test_a_lesson_opens_in_its_language_and_tells_of_minutes_that_nobody_measured(
    tmp_path, monkeypatch
):
    shown = []
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr("IPython.display.display", lambda what: shown.append(what.data))
    monkeypatch.setattr(course, "lessons", lambda: [{"name": "00_start", "minutes": {"cpu": 3}}])
    course.start("00_start", "sanity", "en", "id")
    course.start_records("scratch")
    switch, line = shown
    assert 'value="en" checked' in switch and 'value="id" checked' not in switch
    assert "here: **not yet measured** (measured minutes by profile: cpu: 3)" in line


def test_importing_the_package_and_settings_does_not_import_torch():
    names = [f"helpers.{room}" for room in ROOMS if room not in ("pipeline", "cli")]
    names += [
        f"helpers.course.{m}" for m in ("lesson", "results", "exercises", "display", "device")
    ]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_other_peoples_recipes_get_the_profiles_settings_for_them_and_the_courses_own_do_not(
    tmp_path,
):
    (tmp_path / "dataset-ayam.csv").write_text("Title,Ingredients,Steps\n")
    for name in ("cpu", "sanity"):
        values = settings.profiles()[name]
        own, other = settings.load(name, "id"), settings.load(name, "id", data_dir=tmp_path)
        seen_own, seen_other = (
            {k: getattr(cfg, k) for k in values if hasattr(cfg, k)} for cfg in (own, other)
        )
        assert (
            seen_own["max_length"] == values["max_length"]
            and seen_other == seen_own | values["other_data"]
        )
    values = settings.profiles()["cpu"]
    assert values["other_data"]["max_new_tokens"] > values["max_length"] * planner.LABEL_SHARE


def test_a_folder_whose_files_end_in_capital_csv_is_accepted_and_counts_in_the_key(tmp_path):
    file = tmp_path / "AYAM.CSV"
    file.write_text("Title,Ingredients,Steps\n")
    before = settings.load("sanity", "id", data_dir=tmp_path).data_hash
    (tmp_path / "notes.txt").write_text("Not a recipe, so no other data.")
    assert settings.load("sanity", "id", data_dir=tmp_path).data_hash == before
    file.write_text("Title,Ingredients,Steps\nSoto,a,b\n")
    assert settings.load("sanity", "id", data_dir=tmp_path).data_hash != before


def test_files_come_by_name_however_the_disk_lists_them(tmp_path, monkeypatch):
    """Their order is that of the rows, and the key of the data must be the same on every disk."""
    for name in ("b.csv", "a.csv", "c.csv"):
        (tmp_path / name).write_text("Title,Ingredients,Steps\n")
    listed = [(str(tmp_path), [], ["c.csv", "a.csv", "b.csv"])]
    monkeypatch.setattr(settings.os, "walk", lambda *_, **__: iter(listed))
    assert [path.name for path in settings.csv_files(tmp_path)] == ["a.csv", "b.csv", "c.csv"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_nowhere_is_no_file_of_the_data(tmp_path):
    (tmp_path / "a.csv").write_text("Title,Ingredients,Steps\n")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "moved-away.csv")
    cfg = settings.load("sanity", data_dir=tmp_path)
    assert settings.csv_files(tmp_path) == [tmp_path / "a.csv"] and len(cfg.data_hash) == 8


def test_the_course_s_recipes_are_its_own_data_in_the_language_asked_for_only():
    english = settings.ROOT / "data" / "recipes" / "en"
    cfg = settings.load("sanity", "id", data_dir=english)
    assert not cfg.own_data and cfg.data_name == "en"
    assert settings.load("sanity", "id", "en", data_dir=english).own_data


def hub(answers):
    """A hub on this machine; `answers`: model -> status and headers of its config.json."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            status, headers = answers.get("/".join(self.path.split("/")[1:3]), (404, {}))
            self.send_response(status)
            for name, value in ({"ETag": '"1"', "X-Repo-Commit": "a" * 40} | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def asked(model, tmp_path, **environment):
    """What `settings.reachable` says in a process of its own: the hub's settings are read once."""
    code = (
        "import sys\nfrom helpers.course import settings\n"
        "from helpers.files import UsageError\n"
        "try:\n    print(settings.reachable(sys.argv[1]))\n"
        "except UsageError as problem:\n    print(problem)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    values = clean | {"HF_HOME": str(tmp_path)} | environment
    done = subprocess.run(
        [sys.executable, "-c", code, model],
        cwd=settings.ROOT,
        env=values,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_model_in_the_hubs_own_cache_is_found_without_a_connection(tmp_path):
    cache = tmp_path / "elsewhere" / "models--owner--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("b" * 40)
    (cache / "snapshots" / ("b" * 40)).mkdir(parents=True)
    (cache / "snapshots" / ("b" * 40) / "config.json").write_text("{}")
    offline = {"HF_HUB_CACHE": str(tmp_path / "elsewhere"), "HF_HUB_OFFLINE": "1"}
    assert asked("owner/name", tmp_path, **offline) == "True"
    assert asked("owner/other", tmp_path, **offline) == "False"


def test_another_hub_is_asked_and_a_gated_model_is_named_as_such(tmp_path):
    server = hub({"owner/open": (200, {}), "owner/gated": (403, {"X-Error-Code": "GatedRepo"})})
    try:
        there = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        assert asked("owner/open", tmp_path, **there) == "True"
        assert asked("owner/none", tmp_path, **there) == "False"
        assert "licence has not been accepted" in asked("owner/gated", tmp_path, **there)
    finally:
        server.shutdown()
