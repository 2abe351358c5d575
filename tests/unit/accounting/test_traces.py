"""What a real kubelet said and did, judged: messages of all recorded cases, and cases with an ordinary pod."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.accounting import Ledger, MessageKind, account, read_message
from prewarm.history import History
from prewarm.model.outcomes import ContainerStart, Outcome
from prewarm.model.pods import Pod
from prewarm.model.workloads import KubeletEvent
from tests.support.starts import Scene, running

FOLDER = Path(__file__).parents[2] / "data" / "kubelet-traces"
CASES = sorted(FOLDER.glob("*/*.json"))
SILENT = {"Created", "Started", "Killing", "BackOff", "FailedToRetrieveImagePullSecret", "DeadlineExceeded", "Evicted"}

Trace = dict[str, Any]


def seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def events(trace: Trace) -> Iterator[KubeletEvent]:
    """The kubelet's events; pods are called by name, and our target containers as ours are."""
    for number, entry in enumerate(trace["timeline"]):
        if entry["kind"] != "event":
            continue
        found = entry["object"]
        namespace, _, name = found["pod"].partition("/")
        _, _, container = found.get("fieldPath", "").partition("{")
        yield KubeletEvent(
            str(number),
            namespace,
            name,
            f"uid-{name}",
            found["reason"],
            found["message"],
            "node-a",
            container.rstrip("}").replace("image-", "pull-"),
            seconds(found["firstTimestamp"]),
            seconds(found["lastTimestamp"]),
            found["count"],
        )


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_word_about_an_image_is_understood(path: Path) -> None:
    for event in events(json.loads(path.read_text())):
        message = read_message(event)
        about_pulling = event.reason in {"Pulling", "Pulled"} or "Failed to pull image" in event.message
        assert (message is not None) == about_pulling, event.message
        if message is not None and message.kind is MessageKind.PULLED:
            assert 0 < message.pull_seconds <= message.total_seconds + 0.001
            assert message.size_bytes > 0


def first_start(trace: Trace, name: str) -> tuple[float, float]:
    """Creation of a pod and the first start of its last container."""
    created = started = 0.0
    for entry in trace["timeline"]:
        if entry["kind"] != "pod" or entry["object"]["metadata"]["name"] != name:
            continue
        created = created or seconds(entry["object"]["metadata"]["creationTimestamp"])
        for status in entry["object"]["status"].get("containerStatuses", ()):
            state = status["state"].get("running") or status["state"].get("terminated") or {}
            started = started or (seconds(state["startedAt"]) if state.get("startedAt") else 0.0)
    return created, started


def judged(case: str) -> ContainerStart:
    """The ordinary pod of a case as a pod of web, the puller as ours."""
    trace: Trace = json.loads((FOLDER / f"{case}.json").read_text())
    app = next(pod for pod in trace["pods"] if pod["manifest"]["metadata"]["name"] == "app")
    image = app["manifest"]["spec"]["containers"][0]["image"]
    pulled = next(pod for pod in trace["pods"] if pod["manifest"]["metadata"]["name"] == "puller")
    ours = pulled["manifest"]["spec"]["containers"][0]["image"]
    scene = Scene(image=ours)
    created, done = first_start(trace, "puller")
    ledger, _ = account(Ledger(), scene.snapshot(created), (), History())
    puller = renamed(scene.puller("node-a", created=created, done=done), trace["case"], "puller")
    app_created, app_started = first_start(trace, "app")
    scene.image = image
    pod = renamed(scene.pod("app", "node-a", created=app_created, started=app_started), trace["case"], "app")
    pod = replace(pod, containers=(running("app", app_started),))
    scene.pods = {puller.key: puller, pod.key: pod}
    _, (start,) = account(ledger, scene.snapshot(app_started + 1), events(trace), History())
    return start


def renamed(pod: Pod, namespace: str, name: str) -> Pod:
    return replace(pod, namespace=namespace, name=name, uid=f"uid-{name}")


@pytest.mark.parametrize("runtime", ["containerd-2.4.2", "containerd-1.6.20"])
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("container-then-real-pod", Outcome.HIT_PREWARMED),
        ("container-same-image-while-pulling", Outcome.LATE),
        ("container-serial-1-big", Outcome.MISS_UNPREDICTED),
    ],
)
def test_the_ordinary_pod_of_a_recorded_case(runtime: str, case: str, expected: Outcome) -> None:
    if not (FOLDER / runtime / f"{case}.json").exists():
        pytest.skip(f"{case} was not recorded with {runtime}")
    assert judged(f"{runtime}/{case}").outcome is expected
