"""Training on two processes (gloo) gives what one gives; faults end it with a sentence.

One start of torchrun serves the tests of this module; trainings of one process run here.
"""

import dataclasses
import datetime
import io
import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import two_processes
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file

from helpers.course import settings
from helpers.course.errors import CourseError, UsageError
from helpers.course.files import read_json, write_text
from helpers.course.settings import ROOT
from helpers.data import load_recipes, splits
from helpers.data.recipes import recipes_of
from helpers.training import checkpoints, distributed, models, processes, prompts, trainer

SEED = 7  # not the one where none is given
STEPS = 7  # an epoch of 46 rows has five updates of eight and one of six


@pytest.fixture(scope="module")
def world(corpus, tmp_path_factory):
    """A place with saved splits that no batch divides evenly; updates of 4 batches of 2 rows."""
    root = tmp_path_factory.mktemp("distributed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAPUR_ARTIFACTS", str(root / "artifacts"))
        patch.setattr(settings, "load", two_processes.load)
        cfg = settings.load("sanity", "id", seed=SEED)
        tokenizer = models.load_tokenizer(cfg)
        epochs = [[prompts.messages(r, "id", epoch=n) for r in corpus] for n in range(4)]
        fit = [
            n
            for n, chats in enumerate(zip(*epochs))
            if max(len(prompts.encode(chat, tokenizer)) for chat in chats) <= cfg.max_length
        ]
        train = [chats[n] for chats in epochs for n in fit[7:]]
        parts = {"train": train[:46], "validation": [epochs[0][n] for n in fit[:7]], "test": []}
        assert [len(part) for part in parts.values()] == [46, 7, 0]
        for name, part in parts.items():
            lines = [json.dumps({"title": chat[-1]["content"], "messages": chat}) for chat in part]
            write_text(splits.split_file(cfg, name), "".join(line + "\n" for line in lines))
        yield root


def words(out, steps=STEPS, *more):
    command = ["--profile", "sanity", "--seed", str(SEED), "--steps", str(steps)]
    return [*command, "--out", str(out), *more]


def only_sixth(folder, to):
    """A copy of a training's checkpoints without those after step 6."""
    shutil.copytree(folder / "checkpoints", to / "checkpoints")
    shutil.rmtree(to / "checkpoints" / "checkpoint-7")


@pytest.fixture(scope="module")
def one(world):
    began = time.perf_counter()
    distributed.main(words(world / "one", STEPS, "--keep-gradient"))
    whole = time.perf_counter() - began
    return read_json(world / "one" / "training.json") | {"whole_call": whole}


@pytest.fixture(scope="module")
def started(world, one):
    """What two processes under torchrun have said, after all trainings of this module."""
    if sys.platform == "win32":
        pytest.skip(two_processes.WINDOWS)
    only_sixth(world / "one", world / "onward")
    trainings = [
        ["version", words(world / "version")],
        ["rows", words(world / "rows")],
        ["", words(world / "two", STEPS, "--keep-gradient")],
        ["", words(world / "onward", STEPS, "--resume")],
        ["death", words(world / "death")],
    ]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--monitor-interval", "5", two_processes.__file__]  # time for a last word
    return subprocess.run(
        [sys.executable, *command, json.dumps(trainings)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def two(world, started):
    assert (world / "two" / "training.json").is_file(), started.stderr[-3000:]
    return read_json(world / "two" / "training.json")


def test_one_process_trains_as_lesson_03_does(world, one):
    """Exactly: the losses, gradient norms and evaluations of the trainer that the lesson shows."""
    cfg = distributed.shortened(settings.load("sanity", "id", seed=SEED), STEPS)
    tokenizer = models.load_tokenizer(cfg)
    rows = [trainer.ChatDataset(c, tokenizer, 256) for c in distributed.chats(cfg).values()]
    model = trainer.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    plain = trainer.make_trainer(model, cfg, *rows, tokenizer, world / "plain")
    assert type(plain) is trainer.LabelTrainer
    plain.train()
    assert [r["loss"] for r in plain.history if "loss" in r] == one["losses"]
    assert [r["grad_norm"] for r in plain.history if "loss" in r] == one["gradient_norms"]
    assert [r["eval_loss"] for r in plain.history if "eval_loss" in r] == [
        e["loss"] for e in one["evaluations"]
    ]


def test_what_is_written_of_a_training_is_how_it_ended_and_how_long_it_took(one):
    """One process talks to no other, and needs no row twice to fill a batch."""
    assert one["seed"] == SEED
    assert (one["strategy"], one["backend"], one["rows_repeated"]) == ("single", None, 0)
    assert Path(one["checkpoint"]).name == f"checkpoint-{one['steps']}" == f"checkpoint-{STEPS}"
    assert [e["step"] for e in one["evaluations"]] == list(range(1, STEPS + 1))
    assert one["eval_loss"] == one["evaluations"][-1]["loss"]
    assert 0 < one["seconds"] < one["whole_call"]


def test_a_second_start_without_resume_takes_every_step_anew(world, tmp_path):
    losses = []
    for _ in range(2):
        distributed.main(words(tmp_path, 1))
        losses.append(read_json(tmp_path / "training.json")["losses"])
    assert losses[0] == losses[1] and len(losses[0]) == 1


def test_a_resume_of_another_training_is_refused_and_keeps_its_checkpoints(
    world, one, tmp_path, capsys
):
    only_sixth(world / "one", tmp_path)
    code, said = left(words(tmp_path, STEPS + 1, "--resume"), capsys)
    assert code == 1 and "are of another training" in said
    assert (tmp_path / "checkpoints" / "checkpoint-6").is_dir()


def test_an_update_has_as_many_rows_as_with_one_process(one, two):
    assert (one["processes"], one["batch"], one["accumulation"]) == (1, 2, 4)
    assert (two["processes"], two["batch"], two["accumulation"]) == (2, 2, 2)
    assert one["rows_per_update"] == two["rows_per_update"] == 8
    assert (two["strategy"], two["backend"], two["devices"]) == ("ddp", "gloo", ["cpu", "cpu"])


def test_losses_and_gradient_norms_are_those_of_one_process(one, two):
    """In fp32, with sums in another order: one part in ten thousand. The sixth update: below."""
    for name in ("losses", "gradient_norms"):
        assert len(two[name]) == STEPS
        assert two[name][:5] == pytest.approx(one[name][:5], rel=1e-4)


def test_averaged_gradients_of_the_first_update_are_those_of_one_process(one, two):
    alone, shared = load_file(one["gradient"]), load_file(two["gradient"])
    assert alone.keys() == shared.keys() and any("lora_B" in name for name in alone)
    assert max(gradient.norm() for gradient in alone.values()) > 0
    for name, gradient in alone.items():
        assert torch.allclose(shared[name], gradient, rtol=1e-3, atol=1e-7), name


def test_evaluations_are_those_of_one_process_though_the_last_batch_is_short(one, two):
    assert two["validation_rows"] == 7
    assert [e["step"] for e in two["evaluations"]] == [e["step"] for e in one["evaluations"]]
    ours, theirs = ([e["loss"] for e in run["evaluations"]][:5] for run in (two, one))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert two["gradient_checks"] == one["gradient_checks"] > 0


def test_only_one_process_prints(started):
    for training in ("two", "onward"):
        assert started.stdout.count(f"{training}/training.json") == 1
    assert started.stdout.count(f"step 5/{STEPS} ") == 1


def test_one_process_goes_on_from_a_checkpoint_of_two(world, two):
    only_sixth(world / "two", world / "back")
    distributed.main(words(world / "back", STEPS, "--resume"))
    back = read_json(world / "back" / "training.json")
    assert (back["first_step"], back["processes"]) == (6, 1)
    assert back["losses"] == pytest.approx(two["losses"][6:], rel=1e-4)


def test_two_processes_go_on_from_a_checkpoint_of_one(world, started, one):
    onward = read_json(world / "onward" / "training.json")
    assert (onward["first_step"], onward["processes"]) == (6, 2)
    assert onward["losses"] == pytest.approx(one["losses"][6:], rel=1e-4)


def test_a_process_that_dies_while_saving_leaves_no_checkpoint_taken_for_whole(
    world, started, capsys
):
    assert started.returncode != 0
    assert "another process of this training has ended" in started.stderr
    assert not (world / "death" / "training.json").exists()
    folder = world / "death" / "checkpoints"
    assert (folder / "checkpoint-2" / "adapter_model.safetensors").is_file()
    assert checkpoints.sound_checkpoint(folder).endswith("checkpoint-1")
    assert "checkpoint-2 is broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    "fault, name", [("version", "transformers"), ("rows", "rows_and_settings")]
)
def test_processes_with_other_versions_or_rows_all_stop_before_anything_is_written(
    world, started, fault, name
):
    said = rf"they differ in {name} \(process 0: (\S+), process 1: (\S+)\)"
    ((ours, theirs),) = re.findall(said, started.stderr)
    assert ours != theirs
    for rank in (0, 1):
        assert f"process {rank}, {fault}: exit code 1" in started.stdout
    assert not (world / fault).exists()


@pytest.fixture
def as_process(monkeypatch):
    """as_process(rank, count): what torchrun would set for that process; the port is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def become(rank, count):
        values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
        for name, value in (values | {"MASTER_ADDR": "127.0.0.1"}).items():
            monkeypatch.setenv(name, str(value))
        return port

    return become


def left(words, capsys):
    """Exit code and standard error of a training that does not begin."""
    with pytest.raises(SystemExit) as stopped:
        distributed.main(words)
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_cannot_be_reached_are_waited_for_as_long_as_asked(
    as_process, tmp_path, capsys, rank
):
    port = as_process(rank, 2)
    code, said = left(words(tmp_path / "out", 2, "--wait", "1"), capsys)
    assert code == 1 and said.count("dapur-llm: ") == 1 and "Traceback" not in said
    assert f"process {rank} of 2 did not meet the others at 127.0.0.1:{port} within 1 sec" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason=two_processes.WINDOWS)
def test_a_world_that_does_not_divide_an_update_is_refused_before_anything_is_loaded(
    world, as_process, tmp_path, capsys, monkeypatch
):
    port = as_process(0, 3)
    come = ("127.0.0.1", port, 3, False)  # two that do no more than come to the meeting
    others = [threading.Thread(target=dist.TCPStore, args=come) for _ in range(2)]
    for other in others:
        other.start()
    monkeypatch.setattr(models, "load_base", None)
    code, said = left(words(tmp_path / "out", 2), capsys)
    assert code == 2 and "8 rows in an update (batch 2 x accumulation 4)" in said
    assert "3 processes cannot share evenly. Start 1, 2, 4, 8 processes" in said
    assert not (tmp_path / "out").exists()
    for other in others:
        other.join()


def test_fewer_than_no_steps_are_refused(tmp_path, capsys):
    code, said = left(words(tmp_path / "out", -1), capsys)
    assert code == 2 and "--steps is -1: expected 0" in said and not (tmp_path / "out").exists()


def test_a_training_that_has_no_place_to_write_to_is_refused_at_once(capsys):
    with pytest.raises(SystemExit) as stopped:
        distributed.parser().parse_args(["--profile", "sanity"])
    assert stopped.value.code == 2 and "required: --out" in capsys.readouterr().err


@pytest.fixture
def begin(monkeypatch):
    """begin(words, rank): up to the first barrier; (base models made, what must be the same)."""

    class AtTheBarrier(Exception):
        pass

    def barrier():
        raise AtTheBarrier

    def run(words, rank=0):
        made, same = [], {}
        group = SimpleNamespace(rank=rank, count=4, barrier=barrier, first=lambda value: "float16")
        group.require_same = lambda **facts: same.update(facts)
        group.connect = lambda kind: None
        monkeypatch.setattr(models, "base_folder", made.append)
        with pytest.raises(AtTheBarrier):
            distributed.run_training(distributed.parser().parse_args(words), group)
        return made, same

    return run


@pytest.mark.parametrize("rank", range(4))
def test_the_first_process_alone_makes_the_base_model_and_the_others_wait(begin, rank):
    made, _ = begin(words("out"), rank)
    assert len(made) == (rank == 0)
    assert all(cfg.compute_dtype == "float16" for cfg in made), "all compute as the first does"


def test_processes_must_run_the_same_code_and_versions_on_the_same_kind_of_device(begin, cfg):
    _, same = begin(words("out"))
    assert same | checkpoints.versions() == same and checkpoints.versions()
    assert (same["code"], same["device"]) == (processes.code(), cfg.device.kind)


def test_processes_must_have_the_same_options_but_may_write_and_wait_as_they_like(begin):
    here, there, other = (
        begin(words(out, 5, *more))[1]
        for out, *more in (["a"], ["b", "--wait", "5"], ["a", "--seed", str(SEED + 1)])
    )
    assert here == there != other


def test_without_a_number_of_steps_a_training_is_as_long_as_the_profile_says(begin, cfg):
    _, same = begin(["--profile", "sanity", "--out", "out"])
    assert distributed.shortened(cfg, same["options"]["steps"]).max_steps == cfg.max_steps > 1


def test_a_short_training_warms_up_for_a_quarter_of_it_at_most(cfg):
    cfg = dataclasses.replace(cfg, warmup_steps=3)
    found = [distributed.shortened(cfg, steps).warmup_steps for steps in (1, 3, 4, 8, 11, 12, 40)]
    assert found == [0, 0, 1, 2, 2, 3, 3]
    for uncounted in (-1, 0):  # whole epochs
        whole = dataclasses.replace(cfg, max_steps=uncounted)
        assert distributed.shortened(whole, 0).warmup_steps == 3


@pytest.mark.parametrize("epochs, passes", [(1.0, 1), (3.0, 1), (2.5, 2.5 / 3), (0.5, 0.5)])
def test_rows_that_hold_every_epoch_are_passed_over_once(cfg, epochs, passes):
    cfg = dataclasses.replace(cfg, epochs=epochs)
    assert distributed.shortened(cfg, 0).epochs == pytest.approx(passes)


def test_the_batches_of_the_training_alone_are_shared_out(cfg, tmp_path):
    cfg = dataclasses.replace(cfg, batch=4, accumulation=2)
    args = distributed.arguments(cfg, 40, tmp_path, 4)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (2, 1)
    assert args.per_device_eval_batch_size == 4 and args.logging_steps == 1
    assert args.ddp_find_unused_parameters is False, "a search in each step that finds none"


def test_the_gradient_kept_is_that_of_the_first_whole_update_where_one_is_asked_for(monkeypatch):
    weight = torch.nn.Parameter(torch.zeros(1))

    def step(run, gradient, whole):
        weight.grad, run.accelerator.sync_gradients = torch.tensor([gradient]), whole

    monkeypatch.setattr(trainer.LabelTrainer, "training_step", step, raising=False)
    for asked, kept in ((False, None), (True, {"a": 2.0})):
        run = object.__new__(distributed.DistributedTrainer)
        run.accelerator, run.model = SimpleNamespace(), torch.nn.ParameterDict({"a": weight})
        run.keep_gradient = asked
        for gradient, whole in ((1.0, False), (2.0, True), (3.0, False), (4.0, True)):
            run.training_step(gradient, whole)
        assert run.gradient == kept


def test_an_evaluation_is_of_the_rows_that_are_given_or_of_the_validation_rows():
    own = SimpleNamespace(eval_dataset=[1, 2, 3], data_collator=list)
    own.args = SimpleNamespace(eval_batch_size=2, device=torch.device("cpu"))
    loader = distributed.DistributedTrainer.get_eval_dataloader
    assert list(loader(own)) == [[1, 2], [3]]
    assert list(loader(own, [4, 5, 6, 7])) == [[4, 5], [6, 7]]
    assert list(loader(own, [])) == [], "none is not all"


def test_the_line_of_an_update_is_the_first_process_s_and_never_stays_in_a_buffer(monkeypatch):
    class Pipe(io.StringIO):
        def flush(self):
            arrived.append(self.getvalue())

    arrived = []
    monkeypatch.setattr(sys, "stdout", Pipe())
    for first in (False, True):
        state = SimpleNamespace(is_world_process_zero=first, global_step=3, max_steps=7)
        for logs in ({"eval_loss": 2.0}, {"loss": 1.5, "grad_norm": 0.25}):
            distributed.Printed().on_log(None, state, None, logs=logs)
    assert arrived == ["step 3/7 loss 1.5000 gradient 0.2500\n"]


@pytest.mark.parametrize("saved", [(), ("train",)])
def test_where_lesson_02_left_not_both_splits_each_part_comes_from_its_own(cfg, tmp_path, saved):
    """A recipe to learn comes once for each epoch, also for the last where that ends halfway."""
    own = dataclasses.replace(cfg, artifacts_root=tmp_path, epochs=1.5)
    for name in saved:
        write_text(splits.split_file(own, name), "{}\n")
    table, _ = load_recipes(own.data_dir)
    parts = splits.assign(table, own)
    titles = {name: set(part["title"]) for name, part in parts.groupby("split")}
    found = distributed.chats(own)
    asked = [chat[1]["content"] for chat in found["train"]]
    again = sum(a == b for a, b in zip(asked, asked[own.max_train_rows :]))
    assert again < own.max_train_rows / 2, "each epoch asks anew"
    assert {name: len(chats) for name, chats in found.items()} == {
        "train": own.max_train_rows * math.ceil(own.epochs),
        "validation": own.max_validation_rows,
    }
    for name, chats in found.items():
        assert {chat[-1]["content"].splitlines()[0] for chat in chats} <= titles[name]


def test_without_lesson_02_chats_are_drawn_by_the_seed_in_the_language_of_the_rows(cfg, tmp_path):
    own = dataclasses.replace(cfg, artifacts_root=tmp_path, language="en", seed=7)
    assert own.data_language == "id"
    parts = splits.assign(load_recipes(own.data_dir)[0], own)
    part = parts[parts["split"] == "validation"]
    some = recipes_of(splits.sample_evenly(part, own.max_validation_rows, 7))
    asked = [prompts.messages(recipe, "id", seed=7) for recipe in some]
    assert distributed.chats(own)["validation"] == asked
    assert asked != [prompts.messages(recipe, "id") for recipe in some]


@pytest.mark.parametrize("rows, counted", [(0, 4), (1, 1), (3, 3)])
def test_the_last_batch_of_an_evaluation_counts_as_its_rows(rows, counted):
    """Trainer repeats each batch's loss as for a whole one; the last batch has `rows`, 0: all."""
    state = SimpleNamespace(end_of_dataloader=True, remainder=rows)
    own = SimpleNamespace(gradient_state=state, reduce=lambda losses, how: losses)
    losses = torch.full((4,), 2.5)
    trained = SimpleNamespace(accelerator=own)
    assert len(distributed.DistributedTrainer.mean_of_all(trained, losses)) == counted


@pytest.mark.parametrize("batch, accumulation", [(4, 1), (2, 4), (1, 4), (8, 1), (6, 2)])
def test_shares_are_whole_and_no_larger_at_once_than_the_profile_s(cfg, batch, accumulation):
    cfg = dataclasses.replace(cfg, batch=batch, accumulation=accumulation)
    rows = batch * accumulation
    for count in range(1, rows + 2):
        if rows % count:
            with pytest.raises(UsageError, match="cannot share evenly"):
                distributed.share_out(cfg, count)
            continue
        part = distributed.share_out(cfg, count)
        assert part.batch * part.accumulation * count == rows and part.batch <= batch
    assert distributed.share_out(cfg, 1) == cfg


@pytest.mark.parametrize("rows", [1, 7, 46, 48])
@pytest.mark.parametrize("batch, count", [(2, 2), (1, 4), (3, 2), (4, 8)])
def test_rows_told_as_repeated_are_those_that_accelerate_repeats(rows, batch, count):
    order = torch.utils.data.BatchSampler(range(rows), batch, drop_last=False)
    shards = [list(BatchSamplerShard(order, count, n)) for n in range(count)]
    seen = list(itertools.chain(*itertools.chain(*shards)))
    assert set(seen) == set(range(rows)) and len({len(shard) for shard in shards}) == 1
    assert len(seen) - rows == distributed.repeated(rows, batch, count)
    assert distributed.repeated(rows, batch, 1) == 0, "one process takes a short last batch"


def test_every_process_has_a_gpu_of_its_own(cfg, monkeypatch):
    cuda, given = dataclasses.replace(cfg.device, kind="cuda"), []

    def note(*args, device_map=None, **kwargs):
        given.append(device_map)
        raise OSError("no GPU to load on")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", note)
    for cards, local_rank in ((1, None), (2, None), (2, "0"), (2, "1"), (1, "1"), (0, None)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda cards=cards: cards)
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if local_rank:
            monkeypatch.setenv("LOCAL_RANK", local_rank)
        with pytest.raises(CourseError, match="cannot be loaded"):
            models.load_base(dataclasses.replace(cfg, device=cuda, compute_dtype="float32"))
    assert given == [{"": n} for n in (0, 0, 0, 1, 0, 0)]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(CourseError, match="cannot be loaded"):
        models.load_base(dataclasses.replace(cfg, device=cuda, compute_dtype="float32"))
    assert given[-1] == {"": "cpu"}, "a model that fits no card is cut up first"


def test_two_processes_on_one_gpu_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    card = SimpleNamespace(uuid="GPU-1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    store, said = dist.HashStore(), []

    def connect(rank):
        group = processes.Processes(1)
        group.rank, group.count, group.store = rank, 2, store
        with pytest.raises(UsageError, match="2 processes for 1 GPUs") as refused:
            group.connect("cuda")
        said.append(refused.value)

    both = [threading.Thread(target=connect, args=[rank]) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert len(said) == 2


def test_a_model_is_loaded_for_training_and_its_gpu_is_told_by_its_number(
    world, monkeypatch, tmp_path
):
    loaded, args = [], SimpleNamespace(device=torch.device("cuda", 1))
    run = SimpleNamespace(args=args, gradient=None, train=lambda **how: None)
    monkeypatch.setattr(models, "load_base", lambda cfg, **how: loaded.append(how))
    monkeypatch.setattr(trainer, "attach_adapter", lambda model, cfg: model)
    monkeypatch.setattr(distributed, "make_trainer", lambda *parts: run)
    monkeypatch.setattr(distributed, "report", lambda *parts: {})
    distributed.main(words(tmp_path))
    assert loaded == [{"for_training": True}]
    assert read_json(tmp_path / "training.json")["devices"] == ["cuda:1"]


def test_processes_with_a_gpu_each_form_a_group_on_them(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    taken, formed = [], {}
    cards = [SimpleNamespace(uuid=f"GPU-{n}") for n in range(2)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", cards.__getitem__)
    monkeypatch.setattr(dist, "init_process_group", lambda on, **how: formed.update(how, on=on))
    group = processes.Processes(1)
    group.rank, group.count = 1, 2
    group.gather = lambda own: [own.replace("GPU-1", "GPU-0"), own]
    group.connect("cuda")
    assert taken == [1] and group.backend == "nccl"
    assert (formed["on"], formed["rank"], formed["world_size"]) == ("nccl", 1, 2)


@pytest.mark.parametrize("rank, naps", [(0, 3), (1, 0)])
def test_the_first_process_stays_until_all_have_read_the_answers(monkeypatch, rank, naps):
    """Its machine may keep the store. Here the other one reads while process 0 naps again."""
    values, counts, slept = {}, Counter(), []

    def add(name, number):
        counts[name] += number
        return counts[name]

    def nap(seconds):
        slept.append(seconds)
        assert len(slept) <= 3, "all have read"
        if len(slept) == 3:
            counts.update(list(counts))

    monkeypatch.setattr(processes, "time", SimpleNamespace(sleep=nap))
    group = processes.Processes(1)
    group.rank, group.count = rank, 2
    group.store = SimpleNamespace(
        set=values.__setitem__, get=lambda name: values.get(name, '"theirs"'), add=add
    )
    assert sorted(group.gather("ours")) == ["ours", "theirs"] and len(slept) == naps


def test_on_a_second_machine_a_process_counts_on_and_is_patient_once_all_have_met(monkeypatch):
    values = {"RANK": 3, "LOCAL_RANK": 1, "WORLD_SIZE": 4, "MASTER_ADDR": "a", "MASTER_PORT": 1}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    waited, formed = [], {}

    class Store(dist.HashStore):
        def set_timeout(self, timeout):
            waited.append(timeout)

    def meet(where, timeout):
        waited.append(timeout)
        yield Store(), 3, 4

    monkeypatch.setattr(dist, "rendezvous", meet)
    monkeypatch.setattr(dist, "init_process_group", lambda on, **how: formed.update(how))
    group = processes.Processes(5)
    group.connect("cpu")
    assert (group.rank, group.count, group.backend) == (3, 4, "gloo")
    assert waited == [datetime.timedelta(seconds=5), processes.PATIENCE]
    assert (formed["rank"], formed["timeout"]) == (3, processes.PATIENCE)


def test_what_only_another_process_has_differs():
    group = processes.Processes(1)
    group.gather = lambda own: [own, own | {"kernels": "1.0"}]
    with pytest.raises(CourseError, match=r"kernels \(process 0: None, process 1: 1.0\)"):
        group.require_same(seed=1)


def test_what_differs_is_told_of_the_first_process_that_differs():
    group = processes.Processes(1)
    group.gather = lambda own: [{"seed": n, "steps": 5} for n in (1, 1, 2, 3)]
    said = "they differ in seed (process 0: 1, process 2: 2)."
    with pytest.raises(CourseError, match=re.escape(said)):
        group.require_same(seed=1, steps=5)
    group.gather = lambda own: [own] * 4
    group.require_same(seed=1, steps=5)


def test_a_sentence_is_said_once_and_also_by_whom_the_first_process_has_left():
    group = processes.Processes(1)
    assert group.says_it_first("alone") and group.says_it_first("alone")
    group.store = dist.HashStore()
    assert [group.says_it_first(text) for text in "aaba"] == [True, False, True, False]

    def gone(*question):
        raise dist.DistNetworkError("connection reset")

    group.store = SimpleNamespace(add=gone)
    assert group.says_it_first("a")


@pytest.mark.parametrize("name", ["MASTER_ADDR", "MASTER_PORT"])
def test_a_variable_without_which_processes_cannot_meet_is_named(as_process, monkeypatch, name):
    as_process(1, 2)
    monkeypatch.delenv(name)
    with pytest.raises(CourseError, match=rf"did not meet the others at .*\?.*variable {name} "):
        processes.Processes(1)


LOST = [
    dist.DistNetworkError("the other side hung up"),
    dist.DistBackendError("timed out\nwhere: somewhere"),
    RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"),
    RuntimeError("NCCL communicator was aborted\nwhere: somewhere"),
]


@pytest.mark.parametrize("problem", LOST, ids=["network", "backend", "gloo", "NCCL"])
def test_however_a_lost_process_shows_it_is_told_in_one_line(problem):
    told = processes.explained(problem)
    assert isinstance(told, CourseError) and "another process of this training" in str(told)
    assert f"({str(problem).splitlines()[0]})" in str(told) and "somewhere" not in str(told)
    assert processes.explained(RuntimeError("mat1 and mat2 cannot be multiplied")) is None


@pytest.mark.parametrize(
    "name", ["training/prompts.py", "training/requests.toml", "memory/shapes.csv", None]
)
def test_other_code_is_other_code(monkeypatch, tmp_path, name):
    before = processes.code()
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers")
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    assert processes.code() == before
    if name:
        with open(tmp_path / "helpers" / name, "a") as module:
            module.write("# changed\n")
    else:
        monkeypatch.setattr(processes.platform, "python_version", lambda: "3.99.0")
    assert processes.code() != before


def test_an_error_of_the_program_itself_keeps_its_traceback(world, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load_tokenizer", None)
    with pytest.raises(TypeError):
        distributed.main(words(tmp_path, 2))
    assert processes.explained(TypeError("x")) is None


def test_checkpoints_of_another_training_are_kept_and_named(tmp_path):
    distributed.require_its_own(tmp_path / "none", "a")
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "fingerprint.txt").write_text("a")
    distributed.require_its_own(tmp_path, "a")
    with pytest.raises(CourseError, match="of another training .*leave out --resume"):
        distributed.require_its_own(tmp_path, "b")
    (tmp_path / "fingerprint.txt").unlink()  # of no known training
    with pytest.raises(CourseError, match="of another training"):
        distributed.require_its_own(tmp_path, "a")
    assert (tmp_path / "checkpoint-3").is_dir()
