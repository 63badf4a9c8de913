"""`python -m helpers`: data, gpu, chat, medical, export, serve for people outside the notebooks.

Heavy modules are imported inside the commands, so that --help is quick. Exit codes: 0 fine, 1 the
thing checked is bad, 2 wrong use, 130 interrupted. `python -m pipeline` runs the course itself.
"""

import json
import shutil
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

import yaml
from typer import Argument, Exit, Option, Typer

from . import memory, planner, settings
from .course import quiet
from .files import CourseError, printable, sentence

# Options that several commands share, so that each has one name and one text.
Profile = Annotated[str, Option(help="A profile of helpers/profiles.toml, or auto.")]
Language = Annotated[str, Option(help="Language shown: id or en.", envvar="DAPUR_LANGUAGE")]
Task = Annotated[str, Option(help="What is learnt: id-en, en-id or recipe; auto: by the data.")]
Seed = Annotated[int, Option(help="Random seed, of the training run too.")]
Json = Annotated[bool, Option("--json", help="One JSON object on standard output.")]
Message = Annotated[str | None, Argument(help="One question. Without it: a conversation.")]
Model = Annotated[str, Option(help="tuned, base, owner/name on the hub, or a model's folder.")]

app = Typer(pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)
data = Typer(help="Recipe CSVs and chat JSONL: check them.")
gpu = Typer(help="GPU memory: predict it, watch it.")
app.add_typer(data, name="data")
app.add_typer(gpu, name="gpu")


def main(arguments: list[str] | None = None, app=app) -> None:
    """Run a command; a mistake that a person can mend is one line on standard error."""
    quiet()
    try:
        # typer itself answers wrong options, with exit code 2, and Ctrl-C with 130.
        app(arguments)
    # OSError: a full disk, no right, no network; SyntaxError: in a notebook that is checked.
    except (CourseError, OSError, SyntaxError) as problem:
        print("dapur-llm:", printable(" ".join(str(problem).split())), file=sys.stderr)
        sys.exit(getattr(problem, "exit_code", 1))


def tell(report: dict, as_json: bool = False) -> None:
    """An object as JSON, or for people as YAML: a line for each value and each row of a table."""
    # In ASCII, which a pipe takes whatever its code page.
    text = json.dumps(report, indent=1)
    if not as_json:
        # By way of JSON, so that YAML gets plain values: a tuple has become a list.
        text = yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True)
    print(printable(text))


def lines(message: str | None):
    """A message from the command line, or what a person types, or a pipe brings, to its end."""
    if message is not None:
        yield message
        return
    # Ctrl-D, Ctrl-C and the end of a pipe leave as well; a pipe is shown no prompt.
    prompt = "> " if sys.stdin.isatty() else ""
    with suppress(EOFError, KeyboardInterrupt):
        while (line := input(prompt).strip()) != "/exit":
            if line:
                yield line


def chosen_bot(model: str, *run):
    """A bot of the tuned model in the fastest engine, or of another one; `run`: settings.load."""
    from . import chat, llamacpp, models

    cfg = settings.load(*run, base_model=None if model in ("tuned", "base") else model)
    if model != "tuned":
        return chat.Bot(cfg, tuned=False)
    if models.place_kept(cfg):
        print(sentence("kept_adapter"), file=sys.stderr)
    return llamacpp.open_bot(cfg)


@data.command()
def check(paths: Annotated[list[Path], Argument(exists=True)], as_json: Json = False):
    """Read recipe CSVs as the lessons do: what is kept, dropped and why. Code 1: nothing usable."""
    from .recipes import Report, recipe_chunks

    # One report for all files.
    report = Report()
    for path in paths:
        for _ in recipe_chunks(path, report):
            pass  # only the report is wanted; the rows are let go, so memory stays flat
    # Every row that was dropped, and at the end, where it is seen, the summary.
    tell({"dropped": report.drops} | report.as_dict(), as_json)
    if not report.rows_kept:
        raise CourseError("nothing_usable")


@data.command()
def validate_jsonl(file: Path, train: Path | None = None, as_json: Json = False) -> None:
    """Check chat JSONL before anything is trained on it. Exit code 1: there are errors.

    With --train, the file that is trained on: its rows must not come again in FILE.
    """
    from .jsonl import validate

    # a table, one row for each finding; warnings refuse nothing
    found = validate(file, train)
    wrong = found["error"].any()
    tell({"ok": not wrong, "findings": found.to_dict("records")}, as_json)
    raise Exit(int(wrong))


@gpu.command()
def plan(profile: Profile = "auto", model: str = "", card: float = 0, as_json: Json = False):
    """Predict the memory of a training, part by part, from the model's config alone.

    --model: another base, a hub name or a folder. --card: does it fit so many GiB?
    """
    # "auto" is what a lesson would take on this machine.
    if profile == "auto":
        profile = settings.load().profile
    # Of a model that is named the config may be fetched, which `plan` then finds at hand.
    if model:
        planner.find(model, download=True)
    found = planner.plan(profile, model)
    report = {"profile": profile} | found._asdict() | {"job": vars(found.job)}
    if card:
        report["fits"] = found.total_bytes <= card * planner.GIB
    tell(report, as_json)


@gpu.command()
def monitor(seconds: float = 30, as_json: Json = False) -> None:
    """Watch memory for a while: the GPUs, or the RAM where there is none. Ctrl-C ends it early."""
    peaks = Counter()
    began = monotonic()
    with suppress(KeyboardInterrupt):
        while monotonic() < began + seconds:
            # Of two Counters `|` keeps the higher value of each key.
            peaks |= Counter(memory.devices())
            sleep(1)
    tell({"peak_bytes": peaks}, as_json)


@app.command()
def chat(
    message: Message = None,
    profile: Profile = "auto",
    language: Language = "id",
    task: Task = "auto",
    seed: Seed = 42,
    model: Model = "tuned",
) -> None:
    """Talk to the model that lesson 03 tuned, or to any other. Ctrl-C: stop; /exit: leave."""
    bot = chosen_bot(model, profile, language, task, seed)
    talk = bot.conversation()
    refused = 0
    # A message on the command line is the whole conversation.
    for line in lines(message):
        try:
            for piece in talk.reply(line):
                print(printable(piece), end="", flush=True)
            print()
        except KeyboardInterrupt:  # this answer is over, the conversation goes on
            print()
        except CourseError as problem:  # the next question may be shorter
            refused = 2
            print(problem, file=sys.stderr)
    raise Exit(refused)


@app.command()
def find(message: str, then: str = "", language: Language = "id", as_json: Json = False) -> None:
    """Find and change a recipe by rule, without a model or a training: the chat's front door.

    MESSAGE: what a person types. --then: a second message, which may follow up on the first.
    """
    from .door import Door
    from .kitchen import open_kitchen

    door = Door(open_kitchen(settings.load(language=language), language))
    found = door.ask(message)
    if then:
        found = door.ask(then)
    if as_json:
        tell(found.as_dict(), as_json)
    else:
        print(printable(found.answer))


@app.command()
def medical(message: Message = None, language: Language = "id") -> None:
    """Ask a health question: the nearest written answer. Course material, not medical advice.

    /exit: leave.
    """
    from .medical import Library

    library = Library(language)
    print(library.texts["disclaimer"])
    for question in lines(message):
        print(printable(library.reply(question).text), flush=True)


@app.command("export")
def write_model(
    profile: Profile = "auto",
    language: Language = "id",
    task: Task = "auto",
    seed: Seed = 42,
    base: str = "trained",
    as_json: Json = False,
) -> None:
    """Merge the adapter that lesson 03 trained; write GGUF files, a Modelfile and a model card.

    --base: merge into the weights as trained on, or "full".
    """
    from .export import export

    # The settings name the adapter: they must be those that lesson 03 ran with.
    cfg = settings.load(profile, language, task, seed)
    report = export(cfg, base=base)
    # The adapter's card says what the model is, what it learnt and under which licence.
    shutil.copy(cfg.artifacts / "adapter" / "README.md", report["folder"])
    tell(report, as_json)


@app.command()
def serve(
    profile: Profile = "auto",
    language: Language = "id",
    task: Task = "auto",
    seed: Seed = 42,
    model: Model = "tuned",
    host: str = "127.0.0.1",
    port: Annotated[int, Option(envvar="PORT")] = 7860,
    auth: str = "",
) -> None:
    """Serve a model: a chat page with GET /health, and llama.cpp's API where it answers.

    --host: 0.0.0.0 lets the whole network in. --port: 0 takes any. --auth: USER:PASSWORD that the
    page asks for.
    """
    bot = chosen_bot(model, profile, language, task, seed)
    from .serve import run_service

    run_service(bot, host, port, auth)


if __name__ == "__main__":
    main()
