"""`python -m helpers`: data, gpu, chat, medical, export, serve for people outside the notebooks.

Heavy modules are imported inside the commands, so that --help is quick. Exit codes: 0 fine, 1 the
thing checked is bad, 2 wrong use, 130 interrupted. `python -m pipeline` runs the course itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import psutil
import typer
import yaml
from typer import Option

from . import memory, planner, settings
from .course import quiet
from .files import CourseError, printable, read_json, sentence
from .show import tr

# Options that several commands share, so that each has one name and one text.
Profile = Annotated[str, Option(help="A profile of helpers/profiles.toml, or auto.")]
Language = Annotated[str, Option(help="Language shown: id or en.")]
Task = Annotated[str, Option(help="What is learnt: id-en, en-id or recipe; auto: by the data.")]
Seed = Annotated[int, Option(help="Random seed, of the training run too.")]
Json = Annotated[bool, Option("--json", help="One JSON object on standard output.")]
Message = Annotated[str | None, typer.Argument(help="One question. Without it: a conversation.")]
System = Annotated[
    str, Option(help="A system message of your own, for a model that answers freely.")
]
Model = Annotated[str, Option(help="tuned, base, owner/name on the hub, or a model's folder.")]

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)
data = typer.Typer(help="Recipe CSVs and chat JSONL: check them.", no_args_is_help=True)
gpu = typer.Typer(help="GPU memory: predict it, read it, watch it.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(gpu, name="gpu")


def main(arguments: list[str] | None = None, app=app, name: str = "python -m helpers") -> None:
    """Run a command; a mistake that a person can mend is one line on standard error."""
    try:
        # typer itself answers wrong options, with exit code 2, and Ctrl-C with 130.
        app(arguments, prog_name=name)
    # OSError: a full disk, no right, no network; SyntaxError: in a notebook that is checked.
    except (CourseError, OSError, SyntaxError) as problem:
        print("dapur-llm:", printable(" ".join(str(problem).split())), file=sys.stderr)
        sys.exit(getattr(problem, "exit_code", 1))


def tell(report: dict, as_json: bool = False) -> None:
    """An object as JSON, or for people as YAML: a line for each value and each row of a table."""
    # Through JSON in both cases, so that YAML gets plain values: a tuple has become a list.
    text = json.dumps(report, indent=1, ensure_ascii=False)
    if not as_json:
        # 1234567 as "1,234,567"
        grouped = json.loads(text, parse_int=lambda n: f"{int(n):,}" if len(n) > 4 else int(n))
        text = yaml.safe_dump(grouped, sort_keys=False, allow_unicode=True, width=1000)
    print(printable(text).rstrip())


def lines():
    """What a person types, or what comes from a pipe, until its end or a word that leaves."""
    # Ctrl-D, Ctrl-C and the end of a pipe leave as well; a pipe is shown no prompt.
    leave = {"/exit", "/quit", "/keluar", "exit", "quit", "keluar"}
    prompt = "> " if sys.stdin.isatty() else ""
    with suppress(EOFError, KeyboardInterrupt):
        while (line := input(prompt).strip()).lower() not in leave:
            if line:
                yield line


def no_bars() -> None:
    """Keep the libraries' progress bars and advice out of the terminal."""
    quiet()
    os.environ["TQDM_DISABLE"] = "1"


def chosen_bot(model: str, *run):
    """A bot of the tuned model in the fastest engine, or of another one; `run`: settings.load."""
    no_bars()
    from . import chat, llamacpp, models

    # only the tuned model has a GGUF file
    if model == "tuned":
        cfg = settings.load(*run)
        if models.place_kept(cfg):
            kept = read_json(cfg.artifacts / "adapter" / "training.json")
            print(sentence("kept_adapter", **kept["figures"]), file=sys.stderr)
        return llamacpp.open_bot(cfg)
    return chat.Bot(settings.load(*run, base_model=None if model == "base" else model), tuned=False)


@data.command("check")
def check_csv(paths: Annotated[list[Path], typer.Argument(exists=True)], as_json: Json = False):
    """Read recipe CSVs as the lessons do: what is kept, dropped and why. Code 1: nothing usable."""
    from . import recipes

    # One report for all files: copies are found across them too.
    report = recipes.Report()
    for path in paths:
        for _ in recipes.recipe_chunks(path, report):
            pass  # only the report is wanted; the rows are let go, so memory stays flat
    # Every row that was dropped or stood before, and at the end, where it is seen, the summary.
    rows = {"dropped": report.drops, "copies": report.duplicates().to_dict("records")}
    tell(rows | report.as_dict(), as_json)
    if not report.rows_kept:
        raise CourseError("nothing usable: no row was kept. See data/DATA_CARD.md.")


@data.command("validate-jsonl")
def validate_jsonl(file: Path, train: Path | None = None, as_json: Json = False) -> None:
    """Check chat JSONL before anything is trained on it. Exit code 1: there are errors.

    With --train, the file that is trained on: its rows must not come again in FILE.
    """
    from . import jsonl

    # a table, one row for each finding; warnings refuse nothing
    found = jsonl.validate(file, train)
    report = {"file": str(file), "ok": not found["error"].any()}
    report["kinds"] = found["kind"].value_counts().to_dict()
    tell(report | {"findings": found.to_dict("records")}, as_json)
    raise typer.Exit(0 if report["ok"] else 1)


@gpu.command("plan")
def predict(profile: Profile = "auto", model: str = "", card: float = 0, as_json: Json = False):
    """Predict the memory of a training, part by part, from the model's config alone.

    --model: another base, a hub name or a folder. --card: does it fit so many GiB, and what would?
    """
    # "auto" is what a lesson would take on this machine.
    if profile == "auto":
        profile = settings.profile_for(settings.find_device(), settings.profiles())
    # Of a model that is named the config may be fetched, which `plan` then finds at hand.
    if model:
        planner.find(model, download=True)
    found = planner.plan(profile, model=model or None)
    report = {"profile": profile, "model": found.model, "job": vars(found.job)}
    report |= {"parts": found.parts, "total_bytes": found.total_bytes}
    # with a card: does it fit there, and how far could batch, length or rank go?
    if card:
        report["fits"] = found.total_bytes <= card * planner.GIB
        report["largest"] = planner.recommend(profile, card, model=model or None)
    tell(report, as_json)


@gpu.command()
def stats(as_json: Json = False) -> None:
    """Every GPU as nvidia-smi sees it, and the machine's memory, in bytes."""
    tell({"gpus": memory.gpus(), "ram": psutil.virtual_memory()._asdict()}, as_json)


@gpu.command()
def advise(as_json: Json = False) -> None:
    """Which profile suits this machine, and what each of the others would take."""
    device, table = settings.find_device(), settings.profiles()
    report = {"profile": settings.profile_for(device, table), "device": device.name}
    # By plan, each profile with its own base model, whether or not this machine could hold it.
    report["predicted_bytes"] = {name: planner.plan(name).total_bytes for name in table}
    tell(report, as_json)


@gpu.command()
def monitor(seconds: float = 30, as_json: Json = False) -> None:
    """Watch memory for a while: the GPUs, or the RAM where there is none. Ctrl-C ends it early."""
    peaks, end = {}, time.monotonic() + seconds
    with suppress(KeyboardInterrupt):
        # nvidia-smi counts in MiB. Where it knows no card, the machine's RAM is watched.
        while time.monotonic() < end:
            seen = {f"GPU {c['index']}": int(c["memory.used"]) * 2**20 for c in memory.gpus()}
            for device, used in (seen or {"RAM": psutil.virtual_memory().used}).items():
                peaks[device] = max(peaks.get(device, 0), used)
            time.sleep(1)
    tell({"peak_bytes": peaks}, as_json)


@gpu.command()
def test(as_json: Json = False) -> None:
    """The largest piece of GPU memory that can be had now; 0 without a GPU."""
    tell({"largest_bytes": memory.largest_allocation()}, as_json)


@app.command()
def chat(
    message: Message = None,
    profile: Profile = "auto",
    language: Language = "id",
    task: Task = "auto",
    seed: Seed = 42,
    model: Model = "tuned",
    temperature: Annotated[float, Option(min=0.0, max=2.0, help="0: the likeliest token.")] = 0.0,
    system: System = "",
) -> None:
    """Talk to the model that lesson 03 tuned, or to any other. Ctrl-C: stop; /exit: leave."""
    bot = chosen_bot(model, profile, language, task, seed)
    bot.system = system or bot.system
    talk = bot.conversation(temperature=temperature)
    refused = 0
    # A message on the command line is the whole conversation.
    for line in lines() if message is None else [message]:
        try:
            for piece in talk.reply(line):
                print(printable(piece), end="", flush=True)
            print(flush=True)
        except KeyboardInterrupt:  # this answer is over, the conversation goes on
            print(tr(" [dihentikan]", " [stopped]"))
        except CourseError as problem:  # the next question may be shorter
            refused = 2
            print(problem, file=sys.stderr)
    raise typer.Exit(refused)


@app.command()
def find(
    message: Annotated[str, typer.Argument(help="What a person types.")],
    then: Annotated[str, Option(help="A second message, which may follow up on the first.")] = "",
    language: Language = "id",
    as_json: Json = False,
) -> None:
    """Find and change a recipe by rule, without a model or a training: the chat's front door."""
    from .door import Door
    from .kitchen import open_kitchen

    cfg = settings.load(language=language, task="auto")
    door = Door(open_kitchen(cfg, language))
    found = door.ask(message)
    if then:
        found = door.ask(then)
    if as_json:
        tell(found.as_dict(), as_json)
    else:
        print(printable(found.answer))


@app.command()
def medical(message: Message = None, language: Language = "id") -> None:
    """Ask a health question: the nearest written answer. Course material, not medical advice."""
    from .medical import TEXTS, Library

    library = Library(language)
    print(TEXTS[language]["disclaimer"])
    for question in lines() if message is None else [message]:
        print(printable(library.reply(question).text), flush=True)


@app.command("export")
def write_model(
    profile: Profile = "auto",
    language: Language = "id",
    task: Task = "auto",
    seed: Seed = 42,
    base: Annotated[str, Option(help="Merge into the weights as trained on, or full.")] = "trained",
    out: Annotated[Path | None, Option(file_okay=False, help="Instead of artifacts/.")] = None,
    as_json: Json = False,
) -> None:
    """Merge the adapter that lesson 03 trained; write GGUF files and an Ollama Modelfile."""
    no_bars()
    from .export import export

    # The settings name the adapter: they must be those that lesson 03 ran with.
    cfg = settings.load(profile, language, task, seed)
    tell(export(cfg, base=base, out=out), as_json)


@app.command()
def serve(
    profile: Profile = "auto",
    language: Language = "id",
    task: Task = "auto",
    seed: Seed = 42,
    model: Model = "tuned",
    host: Annotated[str, Option(help="0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[int, Option(envvar="PORT", min=0, max=65535, help="0: any.")] = 7860,
    auth: Annotated[str, Option(help="USER:PASSWORD that the page asks for.")] = "",
    show: Annotated[bool, Option("--open", help="Open the page in the browser.")] = False,
    system: System = "",
) -> None:
    """Serve a model: a chat page with GET /health, and llama.cpp's API where it answers."""
    bot = chosen_bot(model, profile, language, task, seed)
    bot.system = system or bot.system
    from .serve import run_service

    run_service(bot, host=host, port=port, auth=auth, show=show)


if __name__ == "__main__":
    main()
