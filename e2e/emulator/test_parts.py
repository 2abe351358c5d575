"""Parts of the driver that need no cluster."""

import base64
import json

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from e2e.emulator import Catalog, NodePlan
from e2e.emulator.__main__ import app
from e2e.emulator.catalog import parse_declaration
from e2e.emulator.driver import milestone
from e2e.emulator.nodes import manifest
from e2e.emulator.presence import NodeImage, remote_image
from e2e.emulator.secrets import ObservedSecret, pull_secret
from e2e.emulator.watching import Metadata
from e2e.emulator.wire import timestamp
from prewarm.model.images import parse_reference
from prewarm.model.pods import ContainerPhase, ContainerStatus, PodPhase
from prewarm.simulation.outputs import PodStatus
from prewarm.simulation.registry import Registries, RemoteImage


def image(catalog: Catalog, reference: str) -> RemoteImage:
    found = catalog(parse_reference(reference))
    assert found is not None
    return found


def test_tags_of_a_repository_share_their_base_and_nothing_else() -> None:
    catalog = Catalog({"registry.example/app": 1000}, shared_percent=40)
    one, two = image(catalog, "registry.example/app:v1"), image(catalog, "registry.example/app:v2")
    assert one.digest != two.digest
    assert sum(layer.size for layer in one.layers) == 1000
    assert sum(layer.size for layer in set(one.layers) & set(two.layers)) == 400


def test_other_repositories_have_the_default_size() -> None:
    catalog = Catalog({"registry.example/app": 1000}, default_size=70)
    assert image(catalog, "registry.example/other:v1").size - image(catalog, "registry.example/app:v1").size == -930


def test_layers_are_as_many_as_asked_for_and_weigh_the_same() -> None:
    for layers in (1, 3):
        found = image(Catalog({"registry.example/app": 1000}, layers=layers), "registry.example/app:v1")
        assert [len(found.layers), sum(layer.size for layer in found.layers)] == [layers, 1000]


def test_milestones_are_the_begin_the_trouble_and_the_end() -> None:
    helper = ContainerStatus("helper", phase=ContainerPhase.TERMINATED)
    waits = ContainerStatus("pull-0", phase=ContainerPhase.WAITING, reason="PodInitializing")
    fails = replace(waits, reason="ErrImagePull", message="not found")
    backs_off = replace(waits, reason="ImagePullBackOff", message="Back-off pulling image")
    ended = ContainerStatus("pull-0", phase=ContainerPhase.TERMINATED)
    steps = [
        PodStatus(PodPhase.PENDING, 0.0, init_containers=(replace(helper, phase=ContainerPhase.RUNNING),)),
        PodStatus(PodPhase.PENDING, 0.0, init_containers=(helper,), containers=(waits,)),
        PodStatus(PodPhase.PENDING, 0.0, init_containers=(helper,), containers=(fails,)),
        PodStatus(PodPhase.PENDING, 0.0, init_containers=(helper,), containers=(backs_off,)),
        PodStatus(PodPhase.RUNNING, 0.0, init_containers=(helper,), containers=(ended,)),
        PodStatus(PodPhase.SUCCEEDED, 0.0, init_containers=(helper,), containers=(ended,)),
    ]
    assert list(map(milestone, steps)) == ["", "Begun", "ErrImagePull", "ImagePullBackOff", "Begun", "Succeeded"]


@pytest.mark.parametrize("reference", ["registry.example/app:missing-1", "registry.example/app@sha256:" + "a" * 64])
def test_missing_tags_and_unknown_digests_lead_nowhere(reference: str) -> None:
    assert Catalog()(parse_reference(reference)) is None


def test_a_digest_that_was_pulled_by_tag_can_be_pulled_again() -> None:
    registries = Registries(convention=Catalog())
    _, by_tag = registries.resolve(parse_reference("registry.example/app:v1"), None)
    assert by_tag is not None
    assert registries.resolve(parse_reference(f"registry.example/app@{by_tag.digest}"), None)[1] == by_tag


@pytest.mark.parametrize("text", ["registry.example/app", "=1G", "registry.example/app=large"])
def test_a_declaration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_declaration(text)


def test_the_same_plan_gives_the_same_nodes() -> None:
    plan = NodePlan(count=12, zones=3, seed="7")
    assert plan.profiles() == plan.profiles()
    assert {p.labels["topology.kubernetes.io/zone"] for p in plan.profiles()} == {f"region-1-{n}" for n in range(3)}
    assert len({p.allocatable.milli_cpu for p in plan.profiles()}) > 1
    assert {p.allocatable.milli_cpu for p in NodePlan(count=5, varied=False).profiles()} == {7800}


def test_node_names_sort_as_they_count() -> None:
    names = [p.name for p in NodePlan(count=11).profiles()]
    assert names == sorted(names)
    addresses = {str(manifest(p)["status"]["addresses"][0]) for p in NodePlan(count=600).profiles()}  # type: ignore[call-overload,index]
    assert len(addresses) == 600


def secret(config: object) -> ObservedSecret:
    data = {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()}
    return ObservedSecret(Metadata(name="registry", namespace="team"), data)


def test_credentials_are_read_by_host() -> None:
    auth = base64.b64encode(b"user:word").decode()
    both = {
        "auths": {"https://registry.example/v1/": {"auth": auth}, "other.example": {"username": "a", "password": "b"}}
    }
    found = pull_secret(secret(both))
    assert found is not None
    assert found.credentials == {"registry.example": "user:word", "other.example": "a:b"}


def test_a_secret_that_holds_something_else_is_left_alone() -> None:
    assert pull_secret(secret(["no configuration"])) is None
    assert pull_secret(ObservedSecret(Metadata(name="registry"), {".dockerconfigjson": "%"})) is None


def test_a_listed_image_is_taken_over_under_its_names() -> None:
    digest = "sha256:" + "b" * 64
    taken = remote_image(NodeImage([f"registry.example/app@{digest}", "registry.example/app:v1"], 500), Registries())
    assert taken is not None
    assert (taken[1].digest, taken[1].size) == (digest, 500)
    assert remote_image(NodeImage(["registry.example/app:v1"], 500), Registries()) is None


def test_times_have_whole_seconds() -> None:
    assert timestamp(1.9) == "1970-01-01T00:00:01Z"


@pytest.mark.parametrize(
    "arguments", [["--image", "registry.example/app"], ["--bandwidth", "fast"], ["--kubeconfig", "/nowhere/config"]]
)
def test_bad_options_give_one_clear_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.output.startswith("emulator: ")
    assert len(result.output.splitlines()) == 1
