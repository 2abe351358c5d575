"""What admission makes of puller pods, what nodes do to them, and form Volume: read by the pod's own status."""

import json

import pytest
from msgspec.structs import replace

from prewarm.api.names import ANNOTATION_ATTEMPT, ANNOTATION_IMAGES
from prewarm.history import History
from prewarm.model.image_caches import ImageCache, ImageList, PullerForm
from prewarm.model.nodes import FailedPull, NodeImages
from prewarm.model.pods import (
    ContainerKind,
    ContainerPhase,
    ContainerShape,
    ContainerStatus,
    OwnerReference,
    Pod,
    PodPhase,
    PodShape,
)
from prewarm.presence import our_pulls
from prewarm.puller import FailureReason, PullerMemory, PullerSettings, PullState, read, reconcile
from prewarm.puller.alterations import alterations
from prewarm.puller.forms import mounts_images
from tests.support.clusters import cluster, node

APP, HELPER = "registry.test/app:v1", "registry.test/helper:v1"
OURS = {ANNOTATION_IMAGES: json.dumps([APP]), ANNOTATION_ATTEMPT: "1"}
WRONG_TAG = (
    f'rpc error: code = NotFound desc = failed to pull and unpack image "{APP}": '
    f"failed to resolve image: {APP}: not found"
)


def pod(*statuses: ContainerStatus, image: str = APP, added: tuple[ContainerShape, ...] = (), **fields: object) -> Pod:
    shapes = (ContainerShape("helper", HELPER, kind=ContainerKind.INIT), ContainerShape("pull-0", image), *added)
    values: dict[str, object] = {"created_at": 10.0, "node_name": "n1", "annotations": OURS, **fields}
    owner = OwnerReference("ImageCache", "warm", "uid-warm")
    return Pod("shop", "p", "u", owner=owner, shape=PodShape(shapes), containers=statuses, **values)  # type: ignore[arg-type]


def mounting(*statuses: ContainerStatus, **fields: object) -> Pod:
    """In form Volume."""
    shapes = (
        ContainerShape("pull-0", APP, kind=ContainerKind.IMAGE_VOLUME),
        ContainerShape("pull-0", HELPER),
        ContainerShape("sentinel", HELPER),
    )
    return replace(pod(*statuses, **fields), shape=PodShape(shapes))  # type: ignore[arg-type]


def ended(name: str, exit_code: int = 0, **fields: object) -> ContainerStatus:
    reason = "Completed" if exit_code == 0 else "Error"
    return ContainerStatus(
        name,
        ContainerPhase.TERMINATED,
        exit_code=exit_code,
        reason=reason,
        started_at=12.0,
        finished_at=13.0,
        **fields,  # type: ignore[arg-type]
    )


def waiting(name: str, reason: str, message: str, **fields: object) -> ContainerStatus:
    return ContainerStatus(name, ContainerPhase.WAITING, reason=reason, message=message, **fields)  # type: ignore[arg-type]


def verdict(found: Pod, missing_secret: str = "") -> tuple[PullState, FailureReason | None, str]:
    (result,) = read(found, 20.0, 600.0, missing_secret).results
    assert result.image == APP
    return result.state, result.reason, result.message


MESH = ContainerShape("mesh-proxy", "registry.test/mesh:v1")
MESH_INIT = ContainerShape("mesh-init", "registry.test/mesh:v1", kind=ContainerKind.INIT)


def test_unchanged_pod_has_no_alterations() -> None:
    assert alterations(pod(ended("helper", init=True), ended("pull-0"))) == ()


def test_added_containers_are_named_and_do_not_count() -> None:
    running = ContainerStatus("mesh-proxy", ContainerPhase.RUNNING)
    found = pod(ended("pull-0"), running, added=(MESH, MESH_INIT))
    assert verdict(found) == (PullState.PULLED, None, "")
    assert alterations(found) == ("added containers mesh-proxy, mesh-init",)


def test_changed_image_proves_nothing_of_the_one_that_was_asked_for() -> None:
    found = pod(ended("pull-0", image_id="mirror.test/app@sha256:1"), image="mirror.test/app:v1")
    state, reason, message = verdict(found)
    assert (state, reason) == (PullState.FAILED, FailureReason.ALTERED)
    assert "mirror.test/app:v1" in message
    assert [image for image, _ in our_pulls(found)] == ["mirror.test/app:v1"]


def test_command_that_was_changed_shows_by_its_exit() -> None:
    found = pod(ended("helper", init=True), ended("pull-0", 1))
    assert verdict(found)[0] is PullState.PULLED
    assert alterations(found) == ("container pull-0 ended with 1: its command was changed, or fails there",)


def test_dropped_annotations_are_told() -> None:
    assert alterations(pod(annotations={})) == ("dropped annotations",)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "7", '["a", 7]', "null", "\ud800"])
def test_annotations_that_people_wrote_over_are_taken_for_missing(text: str) -> None:
    """Whoever may edit pods may write anything there."""
    annotations = {ANNOTATION_IMAGES: text, ANNOTATION_ATTEMPT: text}
    written = pod(ended("helper"), ended("pull-0"), annotations=annotations)
    assert [(result.image, result.state) for result in read(written, 20.0, 600.0).results] == [(APP, PullState.PULLED)]


@pytest.mark.parametrize(
    "status",
    [
        waiting("mesh-init", "ErrImagePull", WRONG_TAG.replace(APP, MESH.image), init=True),
        waiting("mesh-init", "CreateContainerConfigError", "secret mesh not found", init=True),
        ended("mesh-init", 2, init=True),
    ],
)
def test_added_init_container_in_the_way(status: ContainerStatus) -> None:
    state, reason, message = verdict(pod(status, waiting("pull-0", "PodInitializing", ""), added=(MESH_INIT,)))
    assert (state, reason) == (PullState.FAILED, FailureReason.ALTERED)
    assert message.startswith("added init container mesh-init")


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("OutOfpods", "Pod was rejected: Node didn't have enough resource: pods", FailureReason.REJECTED),
        ("NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed", FailureReason.REJECTED),
        ("Evicted", "Pod was rejected: The node had condition: [DiskPressure]. ", FailureReason.REJECTED),
        ("Evicted", "The node was low on resource: ephemeral-storage. ", FailureReason.EVICTED),
        ("Preempting", "Preempted in order to admit critical pod", FailureReason.EVICTED),
        ("Terminated", "Pod was terminated in response to imminent node shutdown.", FailureReason.EVICTED),
        ("DeadlineExceeded", "Pod was active on the node longer", FailureReason.DEADLINE),
    ],
)
def test_pods_that_a_node_ends(reason: str, message: str, expected: FailureReason) -> None:
    found = verdict(pod(phase=PodPhase.FAILED, reason=reason, message=message))
    assert found == (PullState.FAILED, expected, f"{reason}: {message}")


def test_missing_secret_is_told_where_the_registry_wants_one() -> None:
    said = "Unable to retrieve some image pull secrets (absent); attempting to pull the image may not succeed."
    denied = waiting("pull-0", "ErrImagePull", "authorization failed: no basic auth credentials")
    state, reason, message = verdict(pod(denied), said)
    assert (state, reason) == (PullState.FAILED, FailureReason.MISSING_SECRET)
    assert message == f"{said} authorization failed: no basic auth credentials"
    assert verdict(pod(waiting("pull-0", "ErrImagePull", WRONG_TAG)), said)[1] is FailureReason.NOT_FOUND
    assert verdict(pod(ended("pull-0")), said)[0] is PullState.PULLED


def test_mounted_image_is_proved_by_the_container_that_mounts_it() -> None:
    found = mounting(ended("pull-0", image_id="registry.test/helper@sha256:1"), ended("sentinel"))
    assert verdict(found)[0] is PullState.PULLED
    ((image, sighting),) = our_pulls(found)
    # The digest in its status is the helper's.
    assert (image, sighting.digest) == (APP, "")
    assert verdict(mounting(waiting("pull-0", "ContainerCreating", "")))[0] is PullState.PULLING


def test_mounted_image_that_fails_and_a_helper_that_fails_are_told_apart() -> None:
    assert verdict(mounting(waiting("pull-0", "ErrImagePull", WRONG_TAG)))[1] is FailureReason.NOT_FOUND
    helper = f'Back-off pulling image "{HELPER}": ErrImagePull: {WRONG_TAG.replace(APP, HELPER)}'
    assert verdict(mounting(waiting("pull-0", "ImagePullBackOff", helper)))[1] is FailureReason.HELPER_FAILED


@pytest.mark.parametrize(
    ("kubelet", "runtime", "expected"),
    [
        ("v1.36.3", "containerd://2.4.2", True),
        ("v1.35.0", "containerd://2.1.0", True),
        ("v1.34.9", "containerd://2.4.2", False),
        ("v1.36.3", "containerd://1.6.20", False),
        ("v1.36.3", "containerd://2.0.5", False),
        ("v1.35.2-eks-1", "cri-o://1.33.1", True),
        ("v1.35.2", "cri-o://1.32.4", False),
        ("v1.36.3", "docker://29.0.0", False),
        ("", "", False),
        ("v1.36.3", "containerd://", False),
        ("v1.36.3", "containerd://" + "9" * 5000, False),
    ],
)
def test_which_nodes_mount_images(kubelet: str, runtime: str, expected: bool) -> None:
    assert mounts_images(replace(node("n1"), kubelet_version=kubelet, runtime_version=runtime)) is expected


def test_status_of_a_thousand_failing_nodes_is_small_and_says_why() -> None:
    nodes = [replace(node(f"node-{index:04}"), runtime_version="docker://1") for index in range(1000)]
    images = tuple(f"registry.test/{'x' * 200}/app-{index}:v1" for index in range(5))
    cache = ImageCache(
        "shop", "warm", "uid-warm", 1, (ImageList(images),), created_at=1.0, puller_form=PullerForm.VOLUME
    )
    reasons = [*FailureReason]
    records = [
        NodeImages(
            found.name,
            found.uid,
            found.boot_id,
            failures=tuple(
                FailedPull(
                    image, "shop/warm", "uid-warm", reasons[(row + at) % len(reasons)].value, "y" * 512, 3, 990.0
                )
                for at, image in enumerate(images)
            ),
        )
        for row, found in enumerate(nodes)
    ]
    found = cluster(nodes, image_caches=[cache], node_images=records)
    decision = reconcile(found, PullerSettings(), History(), PullerMemory())
    (status,) = [i for i in decision.intents if getattr(i, "subresource", "") == "status"]
    manifest = getattr(status, "manifest")["status"]  # noqa: B009 - an Apply
    assert len(json.dumps(manifest)) <= 16 * 1024
    assert manifest["failed"] == 5000
    assert sum(entry["count"] for entry in manifest["reasons"]) == 5000
    assert {condition["type"]: condition["status"] for condition in manifest["conditions"]}["VolumeForm"] == "False"
