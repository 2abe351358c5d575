"""Recordings of a real kubelet, read status by status: nothing is claimed that was not so, every failure is named."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prewarm.cluster.decoding.pods import WirePod
from prewarm.cluster.decoding.pods import pod as decode_pod
from prewarm.model.images import canonical
from prewarm.model.pods import Pod
from prewarm.puller import FailureReason, PullState, Reading, read

RECORDINGS = Path(__file__).parents[2] / "data" / "kubelet-traces"
CASES = sorted(
    f"{path.parent.name}/{path.stem}"
    for form in ("container", "volume")
    for path in RECORDINGS.glob(f"*/{form}-*.json")
    if "pod" in json.loads(path.read_text(encoding="utf-8"))
)
REASONS = {
    "wrong-tag": FailureReason.NOT_FOUND,
    "container-2-deadline": FailureReason.NOT_FOUND,
    "private-no-secret": FailureReason.UNAUTHORIZED,
    "private-missing-secret": FailureReason.UNAUTHORIZED,
    "private-wrong-secret": FailureReason.UNAUTHORIZED,
    "private-late-secret": FailureReason.UNAUTHORIZED,
    "unknown-host": FailureReason.REGISTRY_UNAVAILABLE,
    "unreachable": FailureReason.REGISTRY_UNAVAILABLE,
    "wrong-arch": FailureReason.WRONG_PLATFORM,
}
"""By part of the case's name, what has to be told of the image that fails."""

Recording = dict[str, Any]


def expected_reason(case: str) -> FailureReason | None:
    if case.endswith("while-pulling"):
        return None
    return next((reason for part, reason in REASONS.items() if part in case), None)


@lru_cache
def recording(case: str) -> Recording:
    found: Recording = json.loads((RECORDINGS / f"{case}.json").read_text(encoding="utf-8"))
    return found


def statuses(found: Recording) -> Iterator[tuple[float, Pod]]:
    """The puller pod after every watch event; recordings hold only what changed."""
    manifest = found["pod"]
    name = manifest["metadata"]["name"]
    status: dict[str, Any] = {}
    for entry in found["timeline"]:
        if entry["kind"] != "pod" or entry["object"]["metadata"]["name"] != name:
            continue
        for key, value in entry["object"].get("status", {}).items():
            if key in {"conditions", "containerStatuses", "initContainerStatuses"}:
                by = "type" if key == "conditions" else "name"
                merged = {old[by]: old for old in status.get(key, [])} | {new[by]: new for new in value}
                status[key] = list(merged.values())
            else:
                status[key] = value
        for key in entry["object"].get("removed", []):
            status.pop(key, None)
        # The recorded pods have our shape under other names.
        text = json.dumps({**manifest, "status": status}).replace('"name": "image-', '"name": "pull-')
        wire = msgspec.json.decode(text.replace('"name": "copy"', '"name": "helper"'), type=WirePod)
        yield entry["t"], decode_pod(wire, pytest.fail)


def readings(found: Recording) -> Iterator[tuple[float, Reading]]:
    for at, pod in statuses(found):
        yield at, read(pod, at, 1e9)


def pulled_images(found: Recording) -> set[str]:
    """What was on the node in the end, by the kubelet's events and the node's own list."""
    images = set()
    for entry in found["timeline"]:
        if entry["kind"] == "event" and entry["object"].get("reason") == "Pulled":
            images.add(canonical(entry["object"]["message"].split('"')[1]))
        if entry["kind"] == "node":
            for image in entry["object"]["status"].get("images_of_case", []):
                images.update(canonical(name) for name in image["names"])
    return images


@pytest.mark.parametrize("case", CASES)
def test_success_is_claimed_only_for_images_that_were_pulled(case: str) -> None:
    found = recording(case)
    there = pulled_images(found)
    for _, reading in readings(found):
        for result in reading.results:
            if result.state is PullState.PULLED:
                assert canonical(result.image) in there


@pytest.mark.parametrize("case", CASES)
def test_every_image_gets_its_verdict(case: str) -> None:
    found = recording(case)
    seen: dict[str, set[tuple[PullState, FailureReason | None]]] = {}
    for _, reading in readings(found):
        for result in reading.results:
            seen.setdefault(result.image, set()).add((result.state, result.reason))
    there = pulled_images(found)
    for image, verdicts in seen.items():
        if canonical(image) in there:
            assert (PullState.PULLED, None) in verdicts
        else:
            assert any(state is PullState.FAILED for state, _ in verdicts)


@pytest.mark.parametrize("case", [case for case in CASES if expected_reason(case) is not None])
def test_failures_are_named_before_the_pod_is_final(case: str) -> None:
    first = next(
        result
        for _, reading in readings(recording(case))
        for result in reading.results
        if result.state is PullState.FAILED
    )
    assert first.reason is expected_reason(case)
    assert first.message
