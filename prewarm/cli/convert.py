"""`prewarm convert`: manifests of kube-fledged and OpenKruise as ImageCaches."""

import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prewarm.cli.errors import usage

if TYPE_CHECKING:
    from prewarm.conversion import Document
    from prewarm.model.intents import Manifest

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_STDIN = "-"


class ManifestFormat(StrEnum):
    """How manifests are printed."""

    YAML = "yaml"
    JSON = "json"


def convert(
    filename: Annotated[
        list[str],
        typer.Option(
            "--filename",
            "-f",
            metavar="FILE|DIR|-",
            help="Manifests: a file, a folder of .yaml, .yml and .json files, or - for standard input; repeatable.",
        ),
    ],
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Look into folders within folders.")] = False,
    output: Annotated[
        ManifestFormat, typer.Option("--output", "-o", help="How to print them; json prints one List.")
    ] = ManifestFormat.YAML,
) -> None:
    """Turn ImageCaches of kube-fledged, ImagePullJobs and ImageListPullJobs of OpenKruise into ImageCaches.

    What has no counterpart is told on standard error, one line each. If any of them is wrong, nothing is printed.

    kubectl get imagecaches.kubefledged.io -A -o yaml | prewarm convert -f - | kubectl apply -f -
    """
    texts = [(source, text) for name in filename for source, text in _texts(name, recursive=recursive)]
    made = _converted(texts)
    if not made:
        raise usage("nothing to convert: no ImageCache of kube-fledged, no ImagePullJob, no ImageListPullJob")
    if output is ManifestFormat.JSON:
        from prewarm.cli.options import OutputFormat
        from prewarm.cli.output import print_data

        print_data({"apiVersion": "v1", "kind": "List", "items": made}, OutputFormat.JSON)
        return
    from prewarm.cli.yaml_text import to_yaml

    typer.echo("---\n".join(to_yaml(manifest) for manifest in made), nl=False)


def _texts(name: str, *, recursive: bool) -> Iterator[tuple[str, str]]:
    """Name and content of each text; a folder's files in the order of their names."""
    if name == _STDIN:
        yield "standard input", _decoded("standard input", sys.stdin.buffer.read())
        return
    path = Path(name)
    if not path.is_dir():
        yield name, _decoded(name, path.read_bytes())
        return
    found = sorted(file for file in path.glob("**/*" if recursive else "*") if file.suffix in _SUFFIXES)
    if not found:
        raise usage(f"{name}: no .yaml, .yml or .json file in this folder")
    for file in found:
        if file.is_file():
            yield str(file), _decoded(str(file), file.read_bytes())


def _decoded(source: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise usage(f"{source}:{line}: is no text in UTF-8") from None


def _converted(texts: list[tuple[str, str]]) -> "list[Manifest]":
    """Manifests of everything that can be converted; tells what cannot.

    Raises:
        CommandError: if a text or document is wrong; each of them was told.
    """
    from prewarm.conversion import ConversionError, DocumentError, documents
    from prewarm.conversion import convert as convert_document

    made: dict[tuple[object, object], tuple[Document, Manifest]] = {}
    wrong = 0
    for source, text in texts:
        try:
            found = documents(text, source)
        except DocumentError as error:
            _tell(str(error))
            wrong += 1
            continue
        for document in found:
            try:
                result = convert_document(document)
            except ConversionError as error:
                _tell(f"{document.title}: {'skipped: ' if error.harmless else ''}{error}")
                wrong += not error.harmless
                continue
            for remark in result.remarks:
                _tell(f"{document.title}: {remark.field}: {remark.why}")
            key = _key(result.manifest)
            if key in made:
                _tell(f"{document.title}: becomes the same ImageCache as {made[key][0].title}: rename one of them")
                wrong += 1
            else:
                made[key] = document, result.manifest
    if wrong:
        raise usage(f"{wrong} wrong {'manifest' if wrong == 1 else 'manifests'}, nothing printed")
    return [manifest for _, manifest in made.values()]


def _key(manifest: "Manifest") -> tuple[object, object]:
    from prewarm.api.fields import mapping

    metadata = mapping(manifest["metadata"])
    return metadata.get("namespace"), metadata.get("name")


def _tell(line: str) -> None:
    typer.echo(f"prewarm: {' '.join(line.split())}", err=True)
