"""What a puller pod's status says of each image.

The messages in pull_errors.json were copied from recordings of a real kubelet 1.36.3; `origin` names the recording.
"""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

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
from prewarm.puller import FailureReason, PullState, classify, read
from prewarm.puller.outcome import words

MESSAGES = [
    (FailureReason(entry["reason"]), entry["image"], entry["message"])
    for entry in json.loads(Path(__file__).with_name("pull_errors.json").read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("reason", "image", "message"), MESSAGES)
def test_messages_of_a_real_kubelet(reason: FailureReason, image: str, message: str) -> None:
    assert classify(message, image) is reason


@pytest.mark.parametrize("image", ["registry.test/not-found:v1", "unauthorized.test/app:401", "eof.test/429/app:v503"])
def test_names_of_images_are_not_taken_for_reasons(image: str) -> None:
    message = f'failed to pull and unpack image "{image}": failed to resolve image: {image}: connection refused'
    assert classify(message, image) is FailureReason.REGISTRY_UNAVAILABLE


def test_unheard_of_words_are_unknown() -> None:
    assert classify("the moon is in the wrong house", "registry.test/app:v1") is FailureReason.UNKNOWN


def test_words_are_the_same_before_and_in_back_off() -> None:
    message = MESSAGES[0][2]
    assert words(f'Back-off pulling image "{MESSAGES[0][1]}": ErrImagePull: {message}') == words(message) == message


IMAGES = ("registry.test/a:v1", "registry.test/b:v1")
DONE = ContainerStatus("helper", ContainerPhase.TERMINATED, exit_code=0, init=True, finished_at=12.0)


def pod(*statuses: ContainerStatus, **fields: object) -> Pod:
    containers = (
        ContainerShape("helper", "registry.test/helper:v1", kind=ContainerKind.INIT),
        *(ContainerShape(f"pull-{number}", image) for number, image in enumerate(IMAGES)),
        ContainerShape("istio-proxy", "registry.test/proxy:v1"),
    )
    values: dict[str, object] = {"created_at": 10.0, "node_name": "n1", **fields}
    owner = OwnerReference("ImageCache", "warm", "uid-warm")
    return Pod("shop", "p", "u", owner=owner, shape=PodShape(containers), containers=statuses, **values)  # type: ignore[arg-type]


def waiting(number: int, reason: str, message: str = "") -> ContainerStatus:
    return ContainerStatus(f"pull-{number}", ContainerPhase.WAITING, reason=reason, message=message)


def ended(number: int, exit_code: int = 0, reason: str = "Completed", **fields: object) -> ContainerStatus:
    return ContainerStatus(
        f"pull-{number}",
        ContainerPhase.TERMINATED,
        exit_code=exit_code,
        reason=reason,
        image_id="registry.test/a@sha256:0123",
        **fields,  # type: ignore[arg-type]
    )


def states(found: Pod, now: float = 20.0) -> list[tuple[PullState, FailureReason | None]]:
    return [(result.state, result.reason) for result in read(found, now, 600.0).results]


PULLING = (PullState.PULLING, None)
PULLED = (PullState.PULLED, None)


def test_nothing_is_known_while_the_kubelet_is_silent() -> None:
    reading = read(pod(), 20.0, 600.0)
    assert states(pod()) == [PULLING, PULLING]
    assert not reading.begun
    assert not reading.settled


def test_pulling_has_begun_once_the_helper_ended() -> None:
    assert read(pod(DONE, waiting(0, "PodInitializing")), 20.0, 600.0).begun


def test_started_containers_prove_their_images_one_by_one() -> None:
    found = pod(DONE, ended(0), waiting(1, "ContainerCreating"))
    assert states(found) == [PULLED, PULLING]


def test_container_that_cannot_start_proves_its_image() -> None:
    # 2.4.2/container-2-start-error, 1.6.20/volume-1-deadline
    assert states(pod(DONE, ended(0, 128, "StartError"), waiting(1, "CreateContainerError", "failed to mkdir"))) == [
        PULLED,
        PULLED,
    ]


def test_failure_is_read_while_the_container_waits() -> None:
    reason, image, message = MESSAGES[0]
    found = pod(
        DONE, ended(0), waiting(1, "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {message}')
    )
    reading = read(found, 20.0, 600.0)
    assert reading.settled
    assert (reading.results[1].reason, reading.results[1].message) == (reason, message)


def test_final_status_of_a_pod_past_its_deadline_is_judged_by_container() -> None:
    # 2.4.2/container-2-deadline: the reason is gone, the container that ran keeps its own.
    lost = ended(1, 137, "ContainerStatusUnknown")
    found = pod(
        DONE,
        ended(0),
        replace(lost, image_id=""),
        phase=PodPhase.FAILED,
        reason="DeadlineExceeded",
        message="Pod was active on the node longer than the specified deadline",
    )
    assert states(found) == [PULLED, (PullState.FAILED, FailureReason.DEADLINE)]


def test_rejected_pod_says_why() -> None:
    found = pod(phase=PodPhase.FAILED, reason="OutOfpods", message="Pod was rejected: Node didn't have enough pods")
    reading = read(found, 20.0, 600.0)
    assert {result.reason for result in reading.results} == {FailureReason.REJECTED}
    assert reading.results[0].message == "OutOfpods: Pod was rejected: Node didn't have enough pods"


def test_helper_image_that_cannot_be_pulled_is_not_blamed_on_the_targets() -> None:
    helper = ContainerStatus("helper", ContainerPhase.WAITING, reason="ErrImagePull", message="not found", init=True)
    assert states(pod(helper)) == [(PullState.FAILED, FailureReason.HELPER_FAILED)] * 2


def test_injected_container_is_none_of_ours() -> None:
    sidecar = ContainerStatus("istio-proxy", ContainerPhase.RUNNING)
    assert read(pod(DONE, ended(0), ended(1), sidecar, phase=PodPhase.RUNNING), 20.0, 600.0).settled


def test_pod_without_any_verdict_is_given_up_after_its_deadline() -> None:
    assert states(pod(), now=10.0 + 600 + 59) == [PULLING, PULLING]
    assert states(pod(), now=10.0 + 600 + 61) == [(PullState.FAILED, FailureReason.DEADLINE)] * 2


def test_a_short_timeout_is_waited_for_once_more_and_no_longer() -> None:
    def reasons(now: float) -> set[FailureReason | None]:
        return {result.reason for result in read(pod(), now, 15.0).results}

    assert reasons(10.0 + 30) == {None}
    assert reasons(10.0 + 31) == {FailureReason.DEADLINE}


def test_the_cause_is_found_and_told_behind_names_of_any_length() -> None:
    """containerd repeats the image, and names the cause after it."""
    image = f"registry.test/{'a' * 200}:v1"
    said = f'failed to pull and unpack image "{image}": failed to resolve image: {image}: not found'
    shape = PodShape((*pod().shape.containers[:1], ContainerShape("pull-0", image)))
    failing = replace(pod(DONE, waiting(0, "ErrImagePull", f"rpc error: code = NotFound desc = {said}")), shape=shape)
    (found,) = read(failing, 20.0, 600.0).results
    assert found.reason is FailureReason.NOT_FOUND
    assert len(found.message) <= 512
    assert found.message.endswith(": not found")
