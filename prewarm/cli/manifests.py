"""`prewarm crds` and `prewarm policies`: manifests to apply."""

from pathlib import Path
from typing import Annotated

import typer

from prewarm.cli.errors import usage


def crds() -> None:
    """Print the CustomResourceDefinitions: prewarm crds | kubectl apply --server-side -f -."""
    _print(_files("crds"))


def policies(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all if none is named.")] = None,
) -> None:
    """Print the ready-made PrewarmPolicies: prewarm policies scale-out | kubectl apply -f -."""
    files = {file.stem: file for file in _files("policies")}
    for name in names or ():
        if name not in files:
            raise usage(f"no ready-made policy {name!r}; there are: {', '.join(files)}")
    _print([files[name] for name in dict.fromkeys(names or files)])


def _files(folder: str) -> list[Path]:
    """Manifests of a kind: in the installed package, or in the checkout that it is run from."""
    package = Path(__file__).parent
    for place in (package / "manifests_data" / folder, package.parent.parent / folder):
        if place.is_dir():
            return sorted(place.glob("*.yaml"))
    raise FileNotFoundError(f"this installation of prewarm lacks its {folder}: install it again")


def _print(files: list[Path]) -> None:
    texts = [file.read_text(encoding="utf-8").removeprefix("---\n").rstrip() for file in files]
    typer.echo("\n---\n".join(texts))
