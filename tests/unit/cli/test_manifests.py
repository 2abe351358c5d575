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


def test_admission_policies_come_with_their_bindings_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["admission-policies", "--namespace", "ops", "--service-account", "warm", "--purging"]) == 0
    text = capsys.readouterr().out
    found = [(d["kind"], d["metadata"]["name"]) for d in documents(text)]  # type: ignore[index]
    assert sorted(name for kind, name in found if kind == "ValidatingAdmissionPolicy") == sorted(
        name for kind, name in found if kind == "ValidatingAdmissionPolicyBinding"
    )
    assert "system:serviceaccount:ops:warm" in text
    assert "request.namespace == 'ops'" in text
    assert "prewarm-system" not in text


def test_names_in_admission_policies_cannot_end_their_expressions(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["admission-policies", "--namespace", "a' || true || '"]) == 2
    assert "--namespace" in capsys.readouterr().err


def test_containers_that_an_injector_adds_are_named_in_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["admission-policies", "--added-container", "mesh-proxy=registry.test/mesh"]) == 0
    (pullers,) = (
        policy
        for policy in documents(capsys.readouterr().out)
        if policy["kind"] == "ValidatingAdmissionPolicy" and policy["metadata"]["name"] == "prewarm-pullers"  # type: ignore[index]
    )
    named = {"name": "added", "expression": "[{'name': 'mesh-proxy', 'image': 'registry.test/mesh'}]"}
    assert named in pullers["spec"]["variables"]  # type: ignore[index]


@pytest.mark.parametrize("text", ["mesh-proxy", "mesh-proxy=", "=a", "a=b:v1@", "a=b' || true || '", "a'=b"])
def test_what_names_no_container_is_not_put_into_a_policy(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert execute(["admission-policies", "--added-container", text]) == 2
    assert "write name=repository" in capsys.readouterr().err
