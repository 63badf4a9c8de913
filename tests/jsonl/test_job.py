"""The local fine-tuning job: its life, its interruptions, and that the same job runs once."""

import dataclasses
import shutil
import subprocess

import filelock
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers import job, jsonl, models, tasks
from helpers import job as local_job
from helpers.files import CourseError, MissingStep, UsageError, read_json, write_json
from helpers.settings import ROOT, Device
from helpers.training import ChatDataset

TINY = {"n_epochs": 1, "batch_size": 4, "max_steps": 8, "max_length": 512, "warmup_steps": 1}
TINY |= {"checkpoints_per_epoch": 4, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Training and validation file of a small bank job."""
    folder, rows = tmp_path_factory.mktemp("files"), tasks.load_task("bank", "id")
    return [
        jsonl.write_chats([i.chat for i in rows[part][:most]], folder / f"{part}.jsonl")
        for part, most in (("train", 24), ("validation", 6))
    ]


@pytest.fixture(scope="module")
def finished(cfg, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs") / "whole"
    return folder, job.finetune(folder, *files, cfg, **TINY)


def weights(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def told(folder):
    return " | ".join(e["message"] for e in local_job.events(folder))


class At(TrainerCallback):
    """Calls a function after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def interrupt():
    raise KeyboardInterrupt


def test_a_job_succeeds_and_tells_what_it_did(finished, files, tokenizer):
    folder, job = finished
    assert job.id.startswith("ftjob-") and job.hyperparameters["batch_size"] == 4
    assert job.status == "succeeded" and job.finished_at > job.created_at and not job.error
    rows = ChatDataset(jsonl.read_chats(files[0]), tokenizer, TINY["max_length"])
    assert job.trained_tokens == round(rows.tokens * 8 / 6)  # six steps are an epoch
    events = local_job.events(folder)
    assert "Created" in events[0]["message"] and "after 8 steps" in events[-1]["message"]
    losses = [e["data"]["train_loss"] for e in events if "train_loss" in e["data"]]
    assert losses[-1] < losses[0] and any("valid_loss" in e["data"] for e in events)
    assert (folder / "adapter" / "tokenizer.json").is_file()
    assert not (folder / "checkpoints").exists()


def test_a_job_keeps_copies_of_its_files_and_an_adapter_that_names_its_base(finished, files, cfg):
    folder, _ = finished
    for name, path in zip(local_job.FILES, files):
        assert (folder / f"{name}.jsonl").read_bytes() == path.read_bytes()
    base = read_json(folder / "adapter" / "adapter_config.json")["base_model_name_or_path"]
    assert base and "/" not in base, "no folder of this machine"


def test_events_are_metrics_where_they_hold_figures_and_name_each_checkpoint(finished):
    events = local_job.events(finished[0])
    for event in events:
        assert event["type"] == ("metrics" if event["data"] else "message")
    losses = [e["data"]["train_loss"] for e in events if "train_loss" in e["data"]]
    assert any(loss % 1 for loss in losses) and losses == [round(loss, 4) for loss in losses]
    saved = [e["data"]["step"] for e in events if e["message"].startswith("Checkpoint created")]
    assert len(saved) > 1 and saved == sorted(saved) and saved[-1] == TINY["max_steps"]


def test_a_job_json_of_a_later_version_is_read_without_what_is_unknown(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "later")
    write_json(folder / "job.json", read_json(folder / "job.json") | {"suffix": "x"})
    assert local_job.retrieve(folder) == local_job.retrieve(finished[0])


def test_a_job_without_a_batch_size_has_that_of_the_profile_s_updates(files, cfg, tmp_path):
    wide = dataclasses.replace(cfg, batch=2, accumulation=4, base_model=str(tmp_path / "mine"))
    job = local_job._open(tmp_path / "job", wide, tuple(files), False)
    assert job.hyperparameters["batch_size"] == 8
    assert job.model == "mine", "no folder of this machine"


def test_the_key_of_a_job_knows_the_device_and_not_the_language_of_the_reader(files, cfg):
    def key(**changes):
        return local_job._key(dataclasses.replace(cfg, **changes), files)

    assert key(language="en") == key(language="id")
    assert key(device=Device("cuda", cfg.device.name, 8)) != key()


def test_a_job_learns_from_one_file_is_validated_with_the_other_and_says_what_it_leaves_out(
    files, cfg, tmp_path, monkeypatch, tokenizer
):
    begun = []

    def begin(folder, model, tokenizer, cfg, rows, show, callbacks):
        begun.append((rows, show))
        interrupt()

    monkeypatch.setattr(models, "load_base", lambda *asked, **how: None)
    monkeypatch.setattr(local_job.training, "attach_adapter", lambda model, cfg: model)
    monkeypatch.setattr(local_job, "_trainer", begin)
    lengths = [[*map(len, ChatDataset(jsonl.read_chats(f), tokenizer, 512).rows)] for f in files]
    most = max(lengths[0]) - 1
    with pytest.raises(KeyboardInterrupt):
        job.finetune(tmp_path / "job", *files, cfg, show=print, **TINY | {"max_length": most})
    ((rows, show),) = begun
    fit = [sum(length <= most for length in some) for some in lengths]
    assert [len(rows[name]) for name in local_job.FILES] == fit and show is print
    told = f"{24 - fit[0]} rows of the training_file are longer than {most} tokens and left out"
    assert (told, "warn") in [
        (e["message"], e["level"]) for e in local_job.events(tmp_path / "job")
    ]


def test_the_same_job_is_trained_once_and_another_one_anew(finished, files, cfg, tmp_path):
    folder, job = finished
    before = told(folder)
    assert job.finetune(folder, *files, cfg, **TINY) == job and told(folder) == before

    def key(file=files[0], base="sanity", **values):
        settings = dataclasses.replace(cfg, base_model=base)
        settings = local_job.with_hyperparameters(settings, TINY | values)
        return local_job._key(settings, (file, files[1]))

    fewer = jsonl.write_chats(jsonl.read_chats(files[0])[:-1], tmp_path / "fewer.jsonl")
    assert key() == job.id.removeprefix("ftjob-")
    others = key(learning_rate=2e-2), key(seed=7), key(fewer), key(base="packaged")
    named_alike = key(base="/a/model"), key(base="/b/model")
    assert len({key(), *others, *named_alike}) == 7


def test_a_fresh_job_is_trained_anew_though_it_had_finished(finished, files, cfg, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        job.finetune(folder, *files, cfg, fresh=True, callbacks=[At(1, interrupt)], **TINY)
    assert not (folder / "adapter").exists() and "completed" not in told(folder)


def test_a_job_that_failed_and_is_run_again_has_no_error(files, cfg, tmp_path):
    def fail():
        raise ValueError("the disk is full")

    for action, problem in ((fail, ValueError), (interrupt, KeyboardInterrupt)):
        with pytest.raises(problem):
            job.finetune(tmp_path / "job", *files, cfg, callbacks=[At(1, action)], **TINY)
    job = local_job.retrieve(tmp_path / "job")
    assert (job.status, job.error, job.finished_at) == ("queued", None, None)


def test_an_interrupted_job_goes_on_and_ends_with_the_same_weights(finished, files, cfg, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        job.finetune(tmp_path, *files, cfg, callbacks=[At(5, interrupt)], **TINY)
    assert local_job.retrieve(tmp_path).status == "queued"
    assert job.finetune(tmp_path, *files, cfg, **TINY).status == "succeeded"
    assert "Interrupted" in told(tmp_path) and "Resumed from checkpoint-4" in told(tmp_path)
    one, two = weights(finished[0]), weights(tmp_path)
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


KILLED = """
import sys
import psutil
sys.path.insert(0, "tests/jsonl")
from test_job import At, TINY
from helpers import jsonl
from helpers.course import settings
cfg = settings.load("sanity", "id", artifacts_root=sys.argv[2])
kill = At(5, psutil.Process().kill)
jsonl.finetune(sys.argv[1], *sys.argv[3:], cfg, callbacks=[kill], **TINY)
"""


def test_a_killed_job_stays_running_on_paper_and_is_resumed(
    finished, files, cfg, warm_python, tmp_path
):
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    words = [tmp_path / "killed.py", tmp_path / "job", cfg.artifacts_root, *files]
    ended = subprocess.run([warm_python, *map(str, words)], cwd=ROOT, timeout=180)
    folder = tmp_path / "job"
    assert ended.returncode != 0 and local_job.retrieve(folder).status == "running"
    with open(folder / "events.jsonl", "a") as handle:
        handle.write('\n{"object": "fine_tu')  # a line cut short
    assert job.finetune(folder, *files, cfg, **TINY).status == "succeeded"
    assert "Resumed from checkpoint-4" in told(folder)
    assert all(torch.equal(v, weights(finished[0])[k]) for k, v in weights(folder).items())


def test_a_job_loads_the_base_model_for_training(files, cfg, tmp_path, monkeypatch):
    """Loaded as for an answer, some processors give the adapter no gradient: models.load_base."""
    asked = []

    def load(cfg, quantization=None, for_training=False):
        asked.append(for_training)
        interrupt()

    monkeypatch.setattr(models, "load_base", load)
    with pytest.raises(KeyboardInterrupt):
        job.finetune(tmp_path / "job", *files, cfg, **TINY)
    assert asked == [True]


def test_a_job_that_another_process_runs_is_left_alone(finished, files, cfg):
    folder, _ = finished
    with filelock.FileLock(folder.with_name(f".{folder.name}.lock")):
        with pytest.raises(CourseError, match="another process runs the job in .*whole"):
            job.finetune(folder, *files, cfg, **TINY)


def test_rows_come_in_random_order(files, cfg, tmp_path):
    """Sorted by length, the last steps would see short answers, and with them few labels."""
    settings, tokenizer = local_job.with_hyperparameters(cfg, TINY), models.load_tokenizer(cfg)
    rows = {
        name: ChatDataset(jsonl.read_chats(path), tokenizer, 512)
        for name, path in zip(local_job.FILES, files)
    }
    model = models.load_base(cfg, quantization="none")
    shown = []
    trainer = local_job._trainer(tmp_path, model, tokenizer, settings, rows, shown.append, ())
    trainer.log({"loss": 1.5})
    assert shown and shown[-1][-1]["loss"] == 1.5
    train = rows["training_file"]
    order = [len(train.rows[i]) for i in trainer._get_train_sampler(train)]
    drops = sum(a > b for a, b in zip(order, order[1:]))
    assert sorted(order) == sorted(map(len, train.rows))
    assert 0.25 * len(order) < drops < 0.75 * len(order)
    names = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
    assert "GradientGuard" in names and "EarlyStoppingCallback" not in names
    assert trainer.args.load_best_model_at_end is False  # a job gives back its last weights


@pytest.mark.parametrize(
    "spoil, most, message",
    [
        ("{]\n", 512, "line 25: bad_json"),
        ("", 10, "no row of the training_file fits 10 tokens"),
    ],
)
def test_what_goes_wrong_is_raised_and_written(files, cfg, tmp_path, spoil, most, message):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(files[0].read_text() + spoil)
    folder = tmp_path / "first" / "lesson" / "job"  # its folders are made as well
    with pytest.raises(CourseError, match=message):
        job.finetune(folder, bad, files[1], cfg, **TINY | {"max_length": most})
    job = local_job.retrieve(folder)
    assert job.status == "failed" and message in job.error["message"]
    assert local_job.events(folder)[-1]["level"] == "error"


def test_unknown_hyperparameters_and_missing_jobs_are_refused(files, cfg, tmp_path):
    with pytest.raises(UsageError, match="unknown hyperparameter 'epochs'.*n_epochs"):
        job.finetune(tmp_path / "none", *files, cfg, epochs=3)
    assert not (tmp_path / "none").exists()
    with pytest.raises(MissingStep, match="no fine-tuning job in none"):
        local_job.retrieve(tmp_path / "none")


def test_a_finished_job_whose_adapter_was_torn_is_trained_again(finished, files, cfg, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "torn")
    broken = folder / "adapter" / "adapter_model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-9])
    assert job.finetune(folder, *files, cfg, **TINY).status == "succeeded"
    assert weights(folder).keys() == weights(finished[0]).keys()


def test_a_batch_size_is_the_rows_of_one_update(cfg):
    wide = dataclasses.replace(cfg, batch=2, accumulation=4)
    asked = local_job.with_hyperparameters(wide, {"batch_size": 8})
    assert asked.batch * asked.accumulation == 8
    assert local_job.with_hyperparameters(wide, {"n_epochs": 1}).accumulation == 4
