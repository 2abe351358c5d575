"""Writes what is generated from the API models: `python -m prewarm.api.generate [--check]`.

A tool for those who change the API; the only module here that touches files.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from prewarm.api.reference import api_reference
from prewarm.api.schema import KINDS, custom_resource_definition
from prewarm.model.intents import Json

_HEADER = "# Generated from prewarm/api by `python -m prewarm.api.generate`: change the models, not this file.\n"


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key, as Kubernetes writes them, long texts as blocks, and no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: _Dumper, data: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _text)


def to_yaml(manifest: Json) -> str:
    """One YAML document, keys in the order of the manifest."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def generated_files() -> Mapping[str, str]:
    """Contents of all generated files, by path from the project's root."""
    files = {}
    for kind in KINDS:
        name = f"{kind.resource.group}_{kind.resource.plural}.yaml"
        definition = _HEADER + to_yaml(custom_resource_definition(kind))
        files[f"crds/{name}"] = definition
        files[f"charts/prewarm/files/crds/{name}"] = definition
    files["docs/reference/api.md"] = api_reference()
    return files


def drifted(root: Path) -> list[str]:
    """Generated files below the root that differ from what the models say, or that no model stands behind."""
    files = generated_files()
    wrong = [path for path, content in files.items() if not (root / path).is_file() or _read(root / path) != content]
    folders = sorted({str(Path(path).parent) for path in files if path.endswith(".yaml")})
    stray = [
        str(path.relative_to(root))
        for folder in folders
        for path in sorted((root / folder).glob("*.yaml"))
        if str(path.relative_to(root)) not in files
    ]
    return sorted(wrong) + stray


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def main(arguments: Sequence[str], root: Path | None = None) -> int:
    """Write the files, or with --check say which ones differ; exit code 0, 1 (drift) or 2 (usage)."""
    root = root or Path(__file__).resolve().parents[2]
    if list(arguments) == ["--check"]:
        wrong = drifted(root)
        for path in wrong:
            sys.stderr.write(f"{path} differs from prewarm/api: run python -m prewarm.api.generate\n")
        return 1 if wrong else 0
    if arguments:
        sys.stderr.write("usage: python -m prewarm.api.generate [--check]\n")
        return 2
    for path, content in generated_files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
