"""`python -m helpers lab`, `grade`, `certificate`, `site`, `bundle`: what a class needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from helpers import settings
from helpers.cli_options import (
    DataLanguage,
    Language,
    Profile,
    Seed,
    interruptible,
    printable,
    tell,
)
from helpers.files import UsageError
from helpers.show import set_language, tr

Name = Annotated[str, Option(help="Whose copy, work/<name>/. Empty: the login's user name.")]


def lab(
    context: typer.Context,
    name: Name = "",
    reset: Annotated[
        str, Option(help="Put a fresh copy of this lesson (03) there; the old one is kept.")
    ] = "",
    language: Language = "id",
) -> None:
    """Open JupyterLab on your own copy of the lessons; further options go to JupyterLab.

    Copies stand in work/<name>/ and are never overwritten; an update of the course leaves them
    alone and is told of.
    """
    from . import copies

    set_language(settings.choice(language, settings.LANGUAGES, "language"))
    if reset:
        own, kept = copies.reset(name, reset)
        said = tr("salinan baru", "a fresh copy")
        typer.echo(f"{_short(own)}: {said}")
        if kept:
            typer.echo(tr("Yang lama disimpan: ", "The old one is kept: ") + _short(kept))
        return
    found = copies.open_copies(name)
    for line in _told(found):
        typer.echo(line)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={settings.ROOT}"]
    start = f"--LabApp.default_url=/lab/tree/work/{found.folder.name}/00_start.ipynb"
    with interruptible():
        server = subprocess.Popen([*command, start, *context.args], env=_for_kernels())
        try:
            raise typer.Exit(server.wait())
        finally:
            server.terminate()
            server.wait()


def _for_kernels() -> dict[str, str]:
    """The environment of JupyterLab, whose kernels run in the folder of the copy: they find helpers
    there, and folders that were named from here."""
    values = dict(os.environ)
    for name in ("DATA_DIR", "BASE_MODEL", "DAPUR_ARTIFACTS"):
        path = Path(values.get(name, "")).expanduser().absolute()
        if values.get(name) and (path.is_dir() or name == "DAPUR_ARTIFACTS"):
            values[name] = str(path)
    paths = [str(settings.ROOT), values.get("PYTHONPATH")]
    return values | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _told(found) -> list[str]:
    """Lines on what was copied, what the course has newer, what cannot be read."""
    where, lines = f"work/{found.folder.name}", []
    if found.made:
        names = ", ".join(found.made)
        lines.append(tr(f"Disalin ke {where}: {names}", f"Copied to {where}: {names}"))
    for names, indonesian, english in (
        (found.older, "Kursus punya versi baru dari", "The course has a newer version of"),
        (found.broken, "Salinan ini tidak bisa dibaca:", "These copies cannot be read:"),
    ):
        if names:
            lines.append(
                tr(
                    f"{indonesian} {', '.join(names)}. Salinanmu tidak diubah. Untuk mengambil "
                    "yang baru (yang lama tetap disimpan): python -m helpers lab --reset NN",
                    f"{english} {', '.join(names)}. Your copy is unchanged. To get the new one "
                    "(the old one is kept): python -m helpers lab --reset NN",
                )
            )
    return lines


def _short(path: Path) -> str:
    return path.relative_to(settings.ROOT).as_posix()


def grade(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="FOLDER/<learner>/NN_*.ipynb")
    ],
    out: Annotated[
        Path | None, Option(file_okay=False, help="Where marks.csv and marks.html go.")
    ] = None,
    run: Annotated[
        bool, Option("--run", help="Execute each notebook in a kernel. A kernel is no sandbox.")
    ] = False,
    only: Annotated[list[str] | None, Option(help="Only this lesson, 03; may be repeated.")] = None,
    limit: Annotated[float, Option(min=1, help="Seconds for each notebook, with --run.")] = 300,
    language: Language = "id",
) -> None:
    """Marks of many learners' notebooks: exercises by learner, as CSV and as a page.

    Reads what the notebooks' outputs say and believes it. With --run the notebooks are executed on
    the profile sanity, in a temporary copy of the course: only code of people that you trust.
    """
    from . import marks

    set_language(settings.choice(language, settings.LANGUAGES, "language"))
    found = marks.collect(folder)
    if only:
        found = [m for m in found if m.lesson.startswith(tuple(only))]
        if not found:
            raise UsageError(f"no notebook of lesson {', '.join(only)} below {folder}.")
    if run:
        cfg = settings.load("sanity", language)
        with interruptible():
            found = marks.run(found, cfg, limit, lambda text: typer.echo(printable(text), err=True))
    for path in marks.write(found, out or folder, "sanity" if run else ""):
        typer.echo(path)


def certificate(
    profile: Profile = "auto",
    language: Language = "id",
    data_language: DataLanguage = "",
    seed: Seed = 42,
    name: Annotated[str, Option(help="Your name as it shall be printed.")] = "",
    out: Annotated[Path | None, Option(dir_okay=False, help="Where to write the page.")] = None,
) -> None:
    """Write a certificate from your own results: lessons, exercises, before, floor and after."""
    from ..classroom import certificate

    cfg = settings.load(profile, language, data_language, seed)
    typer.echo(certificate.write(cfg, name, out))


def site(out: Path) -> None:
    """Write the course as web pages into OUT: OUT/id/ and OUT/en/, each in one language."""
    from ..classroom import site

    typer.echo(f"{len(site.build(out))} pages, first {out / 'index.html'}")


def bundle(
    folder: Annotated[Path, typer.Argument(help="A new folder for the kit.")],
    platform: Annotated[
        str, Option(help="linux, windows or macos-arm64. Empty: like this machine.")
    ] = "",
    python: Annotated[str, Option(help="Python of those machines, like 3.11. Empty: this.")] = "",
) -> None:
    """Write the course with all its wheels and the model, for machines without internet."""
    from . import kit

    with interruptible():
        tell(kit.bundle(folder, platform, python, lambda text: typer.echo(text, err=True)))
