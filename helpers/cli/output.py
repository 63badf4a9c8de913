"""The `--json` option of every command that reports, and the one way its object is printed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def print_json(value: dict) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
