"""`prewarm crds` and `prewarm policies` print what the project ships."""

import pytest
import yaml

from prewarm.api.schema import KINDS, custom_resource_definition
from prewarm.cli.app import execute


def documents(text: str) -> list[object]:
    return [document for document in yaml.safe_load_all(text) if document]


def test_crds_are_those_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["crds"]) == 0
    printed = {document["metadata"]["name"]: document for document in documents(capsys.readouterr().out)}  # type: ignore[index]
    assert printed == {
        f"{kind.resource.plural}.{kind.resource.group}": custom_resource_definition(kind) for kind in KINDS
    }


def test_policies_are_printed_alone_or_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["policies"]) == 0
    every = documents(capsys.readouterr().out)
    assert execute(["policies", "shadow", "default"]) == 0
    two = documents(capsys.readouterr().out)
    assert len(every) > 2
    assert [document["metadata"]["name"] for document in two] == ["shadow", "default"]  # type: ignore[index]
