"""`python -m helpers export`: the tuned model as files for other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..course.errors import UsageError
from .output import Json, print_json


def export(
    profile: Annotated[str, typer.Option(help="Hardware profile, or auto.")] = "auto",
    language: Annotated[str, typer.Option(help="Language of the messages: id or en.")] = "id",
    data_language: Annotated[
        str, typer.Option(help="Language of the recipes learnt; empty: as --language.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the training run.")] = 42,
    quant: Annotated[
        list[str],
        typer.Option(help="GGUF type: f32, f16, bf16, q8_0, q5_1, q4_1 or q4_0; may be repeated."),
    ] = ("f16", "q8_0"),
    base: Annotated[
        str,
        typer.Option(
            help="Merge into the base's full weights, or as 4-bit training saw them: trained."
        ),
    ] = "full",
    out: Annotated[Path | None, typer.Option(help="Also copy the files into this folder.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Write everything anew, whatever is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Merge the adapter that notebook 03 trained; write GGUF files and an Ollama Modelfile."""
    from .. import export as core
    from ..course import settings
    from ..course.bilingual import tr
    from .chat import quiet

    cfg = settings.load(profile, language, data_language, seed)
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a folder, which may not exist yet.")
    quiet()
    report = core.export(
        cfg, quant, base=base, fresh=fresh, progress=lambda text: typer.echo(f"{text} …", err=True)
    )
    if out is not None:
        wanted = {core.gguf_path(cfg, q).name for q in quant} | {
            n for n in report["files"] if n == "Modelfile" or n.startswith("merged/")
        }
        for name in sorted(wanted):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(report["folder"]) / name, out / name)
        report["copied_to"] = str(out)
    if as_json:
        print_json(report)
        return
    for name, facts in sorted(report["files"].items()):
        state = tr("dipakai lagi", "reused") if name in report["reused"] else tr("baru", "new")
        typer.echo(f"{facts['bytes'] / 1e6:9.1f} MB  {name:34} {state}")
    typer.echo(f"{out or report['folder']} ({report['seconds']} {tr('detik', 'seconds')})")
