"""What an operator sets for all ImageCaches, from the controller's environment to the pods and what they do."""

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.api.names import LABEL_PURGER
from prewarm.controller.settings import Settings
from prewarm.controller.term import puller_settings
from prewarm.model.image_caches import DeletionPolicy, ImageCache, ImageList, PullerForm
from prewarm.model.images import PullPolicy
from prewarm.model.intents import Create
from tests.support.pulling import MB, World, registries

APP, MOVING = "registry.test/web:v1", "registry.test/web:latest"
OWN = "registry.test/prewarm:v1"
HOUR = 3600.0


def cache(image: str = APP, **fields: object) -> ImageCache:
    made = ImageCache("shop", "warm", uid="uid-warm", generation=1, lists=(ImageList((image,)),))
    return replace(made, **fields)


def world(monkeypatch: pytest.MonkeyPatch, **environment: str) -> World:
    """Two nodes, and a controller with these variables, each without its prefix."""
    for name, value in environment.items():
        monkeypatch.setenv(f"PREWARM_{name}", value)
    found = World(registries({APP: MB, MOVING: MB, OWN: MB}), settings=puller_settings(Settings()))
    found.add_nodes(2)
    for name, node in found.nodes.items():
        found.nodes[name] = replace(node, kubelet_version="v1.36.0", runtime_version="containerd://2.1.0")
    return found


def specs(found: World, *, purging: bool = False) -> list[Mapping[str, Any]]:
    """Specs of the pods that were created: those that pull, or those that remove."""
    manifests: list[Mapping[str, Any]] = [dict(i.manifest) for i in found.written if isinstance(i, Create)]
    return [m["spec"] for m in manifests if (LABEL_PURGER in m["metadata"]["labels"]) is purging]


def policies(found: World) -> set[str]:
    """imagePullPolicy of the images that were asked for."""
    containers = (container for spec in specs(found) for container in spec["containers"])
    return {container["imagePullPolicy"] for container in containers if container["image"] == APP}


def test_pull_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = world(monkeypatch, PULL_POLICY="Always", REFRESH_SECONDS="60")
    found.add_cache(cache())
    found.settle(40)
    assert policies(found) == {"Always"}
    first = len(specs(found))
    found.run(70)
    # Every node asks the registry again at the refresh.
    assert len(specs(found)) == 2 * first


def test_pull_policy_of_the_cache_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = world(monkeypatch, PULL_POLICY="Always", REFRESH_SECONDS="60")
    found.add_cache(cache(pull_policy=PullPolicy.IF_NOT_PRESENT))
    found.settle(40)
    assert policies(found) == {"IfNotPresent"}
    first = len(specs(found))
    found.run(70)
    assert len(specs(found)) == first


@pytest.mark.parametrize(("own", "mounted"), [(None, True), (PullerForm.CONTAINER, False)])
def test_puller_form(monkeypatch: pytest.MonkeyPatch, own: PullerForm | None, *, mounted: bool) -> None:
    found = world(monkeypatch, PULLER_FORM="Volume")
    found.add_cache(cache(puller_form=own))
    found.run(1)
    for spec in specs(found):
        references = [volume["image"]["reference"] for volume in spec["volumes"] if "image" in volume]
        assert references == ([APP] if mounted else [])
        assert (APP in [container["image"] for container in spec["containers"]]) is not mounted
    assert len(specs(found)) == 2


@pytest.mark.parametrize(
    ("seconds", "own", "rounds"),
    [("600", None, 5), ("1800", None, 1), ("0", None, 0), ("0", 600.0, 5), ("600", 0.0, 0)],
)
def test_refresh_interval(monkeypatch: pytest.MonkeyPatch, seconds: str, own: float | None, rounds: int) -> None:
    """Within the first hour, of which the first pull comes at once; intervals vary so that caches spread out."""
    found = world(monkeypatch, REFRESH_SECONDS=seconds)
    found.add_cache(cache(MOVING, refresh_seconds=own))
    found.run(HOUR)
    asked_again = len(specs(found)) // len(found.nodes) - 1
    assert abs(asked_again - rounds) <= (1 if rounds else 0)
    assert asked_again >= 1 or not rounds


def test_socket_and_network_of_the_pods_that_remove_images(monkeypatch: pytest.MonkeyPatch) -> None:
    socket = "/run/k3s/containerd/containerd.sock"
    found = world(monkeypatch, PURGE="true", PURGE_IMAGE=OWN, PURGE_SOCKET=socket, PURGE_HOST_NETWORK="true")
    found.add_cache(cache(deletion_policy=DeletionPolicy.PURGE))
    found.settle(60)
    found.caches["shop", "warm"] = replace(found.caches["shop", "warm"], purge_request="now")
    found.run(60)
    removing = specs(found, purging=True)
    assert {spec["nodeName"] for spec in removing} == set(found.nodes)
    for spec in removing:
        assert [volume["hostPath"] for volume in spec["volumes"]] == [{"path": socket, "type": "Socket"}]
        assert spec["hostNetwork"] is True
        assert [container["image"] for container in spec["containers"]] == [OWN]
    assert found.condition("warm", "Purged") == (True, "Removed")


def test_without_them_the_runtimes_own_socket_and_a_network_of_the_pods_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = world(monkeypatch, PURGE="true", PURGE_IMAGE=OWN)
    found.add_cache(cache())
    found.settle(60)
    found.caches["shop", "warm"] = replace(found.caches["shop", "warm"], purge_request="now")
    found.run(60)
    removing = specs(found, purging=True)
    first = {spec["nodeName"]: spec for spec in reversed(removing)}
    assert {spec["volumes"][0]["hostPath"]["path"] for spec in first.values()} == {"/run/containerd/containerd.sock"}
    assert {spec["hostNetwork"] for spec in removing} == {False}
