"""YAML as Kubernetes writes it: lists indented below their key, no anchors, keys in their order."""

from collections.abc import Mapping, Sequence

import yaml

from prewarm.model.intents import Json


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def to_yaml(value: Json) -> str:
    """One document."""
    return yaml.dump(_plain(value), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _plain(value: Json) -> object:
    """Mappings and sequences of any make as dict and list, which is all that the dumper knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
