"""Printing results: JSON and YAML for programs, tables for people."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from prewarm.cli.options import OutputFormat
from prewarm.model.intents import Json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def print_data(data: Json, form: OutputFormat) -> None:
    """Print a value as JSON or YAML; keys keep their order."""
    if form is OutputFormat.JSON:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())
        return
    from prewarm.cli.yaml_text import to_yaml

    typer.echo(to_yaml(data), nl=False)


def console() -> "Console":
    """Standard output for tables: as wide as the terminal, and wide enough in a pipe not to cut anything."""
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "RenderableType":
    """A plain table; columns whose name starts with > hold numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made
