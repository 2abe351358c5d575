"""Runs the emulated kubelet through a recorded case, and brings both accounts into one form."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product
from pathlib import Path

from msgspec.structs import replace

from prewarm.model.pods import ContainerPhase, ContainerStatus, PodPhase
from prewarm.simulation.fleet import Fleet
from prewarm.simulation.kubelet import Kubelet
from prewarm.simulation.manifests import PREFIX, pod_from_manifest
from prewarm.simulation.messages import COMBINED, Runtime
from prewarm.simulation.outputs import (
    EventEmitted,
    ImageRemoved,
    NodeImagesChanged,
    Output,
    PodFinallyDeleted,
    PodStatus,
    PodStatusChanged,
    PullFinished,
)
from prewarm.simulation.registry import Behaviour, Layer, Registries, Registry, RemoteImage
from prewarm.simulation.specs import NodeProfile, PullSecret, Timings

FOLDER = Path(__file__).parents[1] / "data" / "kubelet-traces"
CASES = sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.json"))
RIGHT = "user:right"
HELPER = "helper.test/helper:v1"
RETRY_GAP = 9.0
"""Seconds without any sign of a pod after which the next sign is a repeated sync (back-off 10 to 15 s)."""

ORDER_IS_CHANCE = {
    "containerd-2.4.2/volume-6-pullers-then-real-pod": "six pods at once: which of them pulls when",
    "containerd-2.4.2/volume-14-pullers-at-once": "fourteen pods at once: which of them pulls when",
    "containerd-2.4.2/volume-24-tiny": "three pods at once race for ten pulls: which of them gets which",
}
"""Cases in which goroutines race, so that pods cannot be compared one by one; test_findings.py holds their totals."""
TIME_TOLERANCE = 1.25
"""Seconds: a relist (1 s) may fall the other way, and every step was slower on the busy machine of the traces."""
TIME_TOLERANCE_SHARE = 0.12
"""Of the time since the first pod's creation: throttled pulls on that machine varied by so much."""
MOMENT = 0.6
"""Seconds within which a status may be replaced before it is sent; the machine of the traces was busy."""

Json = dict[str, object]


@dataclass(frozen=True)
class EventSeen:
    """One occurrence of an event, without what differs from run to run."""

    t: float
    type: str
    reason: str
    field_path: str
    message: str
    count: int

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return (self.type, self.reason, self.field_path, self.message, self.count)


@dataclass(frozen=True)
class StatusSeen:
    """One pod status."""

    t: float
    value: tuple[object, ...]


@dataclass
class Account:
    """What happened to the pods and the node of a case."""

    events: dict[str, list[EventSeen]] = field(default_factory=dict)
    statuses: dict[str, list[StatusSeen]] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    images: list[tuple[float, list[tuple[str, ...]], list[int]]] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)
    pulls: list[PullFinished] = field(default_factory=list)
    removed: list[ImageRemoved] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)


def normal(text: str) -> str:
    """A message without durations, container ids and uids."""
    text = re.sub(r"in [0-9.hms]+ \([0-9.hms]+ including waiting\)", "in D (D including waiting)", text)
    text = re.sub(r'container "[0-9a-f]{64}"', 'container "ID"', text)
    text = re.sub(r"Threshold quantity: \d+, available: \w+", "Threshold quantity: N, available: N", text)
    return re.sub(r"\([0-9a-f]{8}-[0-9a-f-]{27}\)", "(UID)", text)


class Trace:
    """A recorded case."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.raw = json.loads((FOLDER / f"{case}.json").read_text(encoding="utf-8"))
        self.timeline = self.raw["timeline"]
        self.runtime = Runtime(f"containerd://{self.raw['containerd']}")
        self.pods = [self.raw["pod"]] if "pod" in self.raw else self.raw["pods"]

    def entries(self, kind: str) -> Iterator[tuple[float, Json]]:
        """Entries of a kind with their times."""
        for entry in self.timeline:
            if entry["kind"] == kind:
                yield entry["t"], entry["object"]

    def account(self) -> Account:
        """The case as it was recorded."""
        found = Account()
        for t, o in self.entries("event"):
            seen = EventSeen(
                t,
                str(o["type"]),
                str(o["reason"]),
                str(o.get("fieldPath", "")),
                normal(str(o["message"])),
                int(str(o["count"])),
            )
            found.events.setdefault(str(o["pod"]), []).append(seen)
        self._statuses(found)
        for t, o in self.entries("node"):
            images = o["status"]["images_of_case"]  # type: ignore[index]
            found.images.append((t, [tuple(i["names"]) for i in images], [i["sizeBytes"] for i in images]))
        self._counters(found)
        return found

    def _counters(self, found: Account) -> None:
        """Differences over the case; after a restart of the kubelet what its counters had reached."""
        restarted = next((t for t, text in self.notes() if text == "kubelet started"), None)
        for t, o in self.entries("metrics"):
            after = str(o["note"]).startswith("after")
            if after or (restarted is not None and t > restarted):
                found.counters |= {str(k): float(v) for k, v in o["values"].items()}  # type: ignore[attr-defined]

    def _statuses(self, found: Account) -> None:
        whole: dict[str, Json] = {}
        for t, o in self.entries("pod"):
            meta: Json = o["metadata"]  # type: ignore[assignment]
            key = f"{meta['namespace']}/{meta['name']}"
            if o["watch"] == "DELETED":
                found.deleted[key] = t
                continue
            status = whole.setdefault(key, {})
            for name, value in o["status"].items():  # type: ignore[attr-defined]
                if name in {"conditions", "containerStatuses", "initContainerStatuses"}:
                    by = "type" if name == "conditions" else "name"
                    merged = {x[by]: x for x in status.get(name, [])} | {x[by]: x for x in value}  # type: ignore[attr-defined]
                    status[name] = list(merged.values())
                else:
                    status[name] = value
            for name in o.get("removed", []):  # type: ignore[attr-defined]
                status.pop(name, None)
            if "startTime" in status:
                note_status(found.statuses.setdefault(key, []), t, recorded_status(status))

    def created(self) -> dict[str, tuple[float, str]]:
        """When each pod's creation was seen, and its uid."""
        found: dict[str, tuple[float, str]] = {}
        for t, o in self.entries("pod"):
            if o["watch"] == "ADDED":
                meta: Json = o["metadata"]  # type: ignore[assignment]
                found[f"{meta['namespace']}/{meta['name']}"] = (t, str(meta["uid"]))
        return found

    def deletions(self) -> list[tuple[float, str, float, int]]:
        """Deletions by a pod's owner: time, pod, grace and generation."""
        found: dict[str, tuple[float, str, float, int]] = {}
        for t, o in self.entries("pod"):
            meta: Json = o["metadata"]  # type: ignore[assignment]
            key = f"{meta['namespace']}/{meta['name']}"
            if "deletionTimestamp" in meta and key not in found:
                found[key] = (
                    t,
                    key,
                    float(str(meta.get("deletionGracePeriodSeconds", 0))),
                    int(str(meta.get("generation", 2))),
                )
        return list(found.values())

    def notes(self) -> list[tuple[float, str]]:
        """What the test did."""
        return [(t, str(o["text"])) for t, o in self.entries("note")]

    def retries(self) -> dict[str, list[float]]:
        """When each pod's syncs were repeated: what the kubelet's jitter was."""
        signs: dict[str, list[float]] = {}
        for t, o in self.entries("event"):
            signs.setdefault(str(o["pod"]), []).append(t)
        for t, o in self.entries("pod"):
            meta: Json = o["metadata"]  # type: ignore[assignment]
            key = f"{meta['namespace']}/{meta['name']}"
            if "deletionTimestamp" not in meta and o["watch"] != "DELETED":
                signs.setdefault(key, []).append(t)
        ends = {key: t for t, key, _, _ in self.deletions()}
        for t, o in self.entries("event"):
            if o["reason"] == "DeadlineExceeded":
                ends[str(o["pod"])] = min(t, ends.get(str(o["pod"]), t))
        repeated: dict[str, list[float]] = {}
        for key, times in signs.items():
            times = sorted(t for t in times if t < ends.get(key, t + 1))
            for before, after in pairwise(times):
                if after - before >= RETRY_GAP:
                    hidden = max(1, round((after - before) / 12.5))
                    step = (after - before) / hidden
                    repeated.setdefault(key, []).extend(before + step * (n + 1) for n in range(hidden))
        return repeated


def recorded_status(status: Json) -> tuple[object, ...]:
    """A recorded status in the form that both accounts share."""
    conditions = tuple(
        sorted(
            (
                c["type"],
                c["status"] == "True",
                c.get("reason", ""),
                c.get("message", "") if c["type"] != "DisruptionTarget" else "",
            )
            for c in status.get("conditions", [])  # type: ignore[attr-defined]
            if c["type"] != "PodScheduled"
        )
    )
    containers = [
        _recorded_container(c)
        for name in ("initContainerStatuses", "containerStatuses")
        for c in status.get(name, [])  # type: ignore[attr-defined]
    ]
    return (status["phase"], status.get("reason", ""), _address(status), conditions, *containers)


def _address(status: Json) -> bool:
    """Whether there is an address; ended pods keep it or not, which nothing depends on."""
    return bool(status.get("podIP")) and status["phase"] not in {"Succeeded", "Failed"}


def _recorded_container(c: Json) -> tuple[object, ...]:
    ((kind, state),) = c["state"].items()  # type: ignore[attr-defined]
    reason = "" if kind == "running" else state.get("reason", "")
    return (
        c["name"],
        kind,
        reason,
        normal(state.get("message", "")) if kind != "running" else "",
        state.get("exitCode"),
        c["ready"],
        c["started"],
        c["restartCount"],
        c["imageID"],
    )


def emulated_status(status: PodStatus) -> tuple[object, ...]:
    """An emulated status in the form that both accounts share."""
    conditions = tuple(
        sorted(
            (c.type.value, c.status, c.reason, c.message if c.type.value != "DisruptionTarget" else "")
            for c in status.conditions
        )
    )
    containers = [_emulated_container(c) for c in (*status.init_containers, *status.containers)]
    address = bool(status.pod_ip) and status.phase not in {PodPhase.SUCCEEDED, PodPhase.FAILED}
    return (status.phase.value, status.reason, address, conditions, *containers)


def _emulated_container(c: ContainerStatus) -> tuple[object, ...]:
    kind = {
        ContainerPhase.WAITING: "waiting",
        ContainerPhase.RUNNING: "running",
        ContainerPhase.TERMINATED: "terminated",
    }[c.phase]
    return (
        c.name,
        kind,
        c.reason,
        normal(c.message),
        c.exit_code,
        c.ready,
        c.phase is ContainerPhase.RUNNING,
        c.restart_count,
        c.image_id,
    )


def note_status(seen: list[StatusSeen], t: float, value: tuple[object, ...]) -> None:
    """Add a status if it differs from the one before."""
    if not seen or seen[-1].value != value:
        seen.append(StatusSeen(t, value))


class Emulation:
    """One run of the model through a case, with a given phase of the relist."""

    def __init__(self, trace: Trace, *, relist_phase: float, relist_joins: bool, run_seconds: float) -> None:
        self._trace = trace
        self._run_seconds = run_seconds
        self._joins = relist_joins
        self._phase = relist_phase
        self._retries = trace.retries()
        self._keys: dict[str, str] = {}
        self.found = Account()
        self._registries = Registries(self._hosts())
        self._fleet = Fleet(self._registries, now=-1.0, chance=self._chance)
        self._case_digests = {i["digest"] for i in trace.raw["images"]}
        self._later = self._push()
        self.kubelet = self._fleet.add_node(self._profile())
        if not any(o["reason"] == "Pulling" and HELPER in str(o["message"]) for _, o in trace.entries("event")):
            self.kubelet.preload(HELPER, _helper())
        if trace.case.endswith("-hit"):
            for image in trace.raw["images"]:
                self.kubelet.preload(image["ref"], self._images[image["ref"]])

    def run(self) -> Account:
        """Play the case and account for it."""
        for t, _, action in sorted(self._script(), key=lambda step: step[:2]):
            self._advance(t)
            action()
        self._advance(max(entry["t"] for entry in self._trace.timeline) + 45)
        requests = self.kubelet.images.requests
        for request, number in requests.items():
            labels = (
                f'present_locally="{request.present_locally}",pull_policy="{request.pull_policy}",'
                f'pull_required="{request.pull_required}"'
            )
            self.found.counters[f"image_manager_ensure_image_requests_total{{{labels}}}"] = number
        self.found.counters["image_pull_duration_seconds_count"] = self.kubelet.images.pulls
        return self.found

    def _chance(self, _node: str, what: str, *about: object) -> float:
        match what:
            case "relist":
                return self._phase
            case "retry":
                now = self._fleet.now
                later = (t - now for t in self._retries.get(self._keys[str(about[0])], []) if t > now + RETRY_GAP - 1)
                # A repetition that was not seen came after the pod's deletion at the earliest.
                return (next(later, 20.0) - 10.0) / 5.0
            case "gc":
                first = next((t for t, _ in self._trace.entries("log")), 250.0)
                return (first + 1.0) / 300.0
            case _:
                return 0.5

    def _hosts(self) -> list[Registry]:
        endpoints = 2 if self._trace.case.endswith("container-silent-registry") else 1
        return [
            Registry("registry.test", 20e6),
            Registry("private.test", 20e6, accepts=frozenset({RIGHT})),
            Registry("unreachable.test", behaviour=Behaviour.REFUSES),
            Registry("nowhere.test", behaviour=Behaviour.UNKNOWN_HOST),
            Registry("silent.test", behaviour=Behaviour.SILENT, endpoints=endpoints),
        ]

    def _profile(self) -> NodeProfile:
        parallel = "parallel" in self._trace.case
        profile = NodeProfile(
            "node-a",
            bandwidth=1e9,
            pull_slots=2 if parallel else 1,
            runtime=self._trace.runtime,
            status_max_images=None,
            timings=Timings(tick=0.01, relist_joins=self._joins),
        )
        if self._trace.case.endswith("image-gc"):
            return replace(profile, image_disk=3e9, gc_high_percent=40, gc_low_percent=10, gc_minimum_age=20.0)
        return profile

    def _push(self) -> list[tuple[str, RemoteImage]]:
        """Fill the registry; returns what is pushed when the missing tag is."""
        self._images: dict[str, RemoteImage] = {}
        later: list[tuple[str, RemoteImage]] = []
        waits = any("missing tag" in text for _, text in self._trace.notes())
        for image in self._trace.raw["images"]:
            sizes = [int(megabytes * 1e6) for megabytes in image["layers_mb"]]
            layers = tuple(Layer(f"{image['digest']}#{n}", size) for n, size in enumerate(sizes))
            remote = RemoteImage(
                image["digest"],
                layers,
                max(0, image["size"] - sum(sizes)),
                matches_platform=not ("wrong-arch" in self._trace.case and "app-3" in image["ref"]),
                user="root" if "user-root" in image["ref"] else "appuser" if "user-name" in image["ref"] else "0",
            )
            if waits and image["ref"].endswith(":v9"):
                later.append((image["ref"], remote))
            else:
                self._registries.push(image["ref"], remote)
            self._images[image["ref"]] = remote
        self._registries.push(HELPER, _helper())
        return later

    def _script(self) -> Iterator[tuple[float, int, Callable[[], None]]]:
        order = 0
        created = self._trace.created()
        for pod in self._trace.pods:
            manifest = pod.get("manifest", pod)
            namespace = pod.get("namespace") or next(iter(created)).split("/")[0]
            key = f"{namespace}/{manifest['metadata']['name']}"
            t, uid = created[key]
            self._keys[uid] = key
            order += 1
            yield t, order, self._binding(manifest, namespace, uid)
        uids = {key: uid for uid, key in self._keys.items()}
        for t, key, grace, generation in self._trace.deletions():
            order += 1
            yield t, order, self._deletion(uids[key], grace, generation)
        yield from self._notes(order)
        if "secret" in self._trace.case or "credentials" in self._trace.case:
            yield -0.5, 0, self._secrets

    def _binding(self, manifest: Json, namespace: str, uid: str) -> Callable[[], None]:
        meta: Json = {**manifest["metadata"], "namespace": namespace, "uid": uid}  # type: ignore[dict-item]
        command = manifest["spec"]["containers"][0].get("command") or [""]  # type: ignore[index]
        if "sleep" in command:
            meta["annotations"] = {PREFIX + "run-seconds": "never", PREFIX + "stop-seconds": "never"}
        elif str(command[0]).startswith("/no/such"):
            meta["annotations"] = {PREFIX + "start-error": "true"}
        else:
            meta["annotations"] = {PREFIX + "run-seconds": str(self._run_seconds)}
        spec = pod_from_manifest({**manifest, "metadata": meta})
        return lambda: self._fleet.pod_bound(spec)

    def _deletion(self, uid: str, grace: float, generation: int) -> Callable[[], None]:
        # The API server removes a finished pod at once; for others it waits for the kubelet.
        return lambda: self._fleet.pod_gone(uid) if grace == 0 else self._fleet.pod_deleted(uid, grace, generation)

    def _notes(self, order: int) -> Iterator[tuple[float, int, Callable[[], None]]]:
        for t, text in self._trace.notes():
            order += 1
            if text == "kubelet stopped":
                yield t, order, lambda: self.kubelet.restart(2.03)
            elif "missing tag" in text:
                yield t, order, self._push_later
            elif text == "the secret is created":
                yield t, order, lambda: self._secret(self._trace.raw["case"], "registry", RIGHT)
            elif "filesystem is filled" in text:
                yield t, order, lambda: self.kubelet.collector.fill(2.6e9)

    def _push_later(self) -> None:
        for reference, image in self._later:
            self._registries.push(reference, image)

    def _secrets(self) -> None:
        case = self._trace.raw["case"]
        if "credentials" in case:
            self._secret(f"{case}-a", "registry", RIGHT)
            self._secret(f"{case}-b", "registry-copy", RIGHT)
            self._secret(f"{case}-b2", "registry", "user:wrong")
        elif "right-secret" in case or "wrong-secret" in case:
            self._secret(case, "registry", RIGHT if "right" in case else "user:wrong")

    def _secret(self, namespace: str, name: str, text: str) -> None:
        self._fleet.secret_changed(PullSecret(namespace, name, {"private.test": text}))

    def _advance(self, t: float) -> None:
        """Let time pass in small steps, so that final deletions reach the kubelet as the API server tells them."""
        while True:
            wakeup = self._fleet.next_wakeup()
            step = t if wakeup is None else min(t, wakeup)
            for output in self._fleet.advance(max(step, self._fleet.now)):
                self._take(output)
            if step >= t:
                return

    def _take(self, output: Output) -> None:
        self.found.outputs.append(output)
        match output:
            case EventEmitted():
                seen = EventSeen(
                    output.at,
                    output.type.value,
                    output.reason,
                    output.field_path,
                    normal(output.message),
                    output.count,
                )
                self.found.events.setdefault(f"{output.namespace}/{output.pod}", []).append(seen)
            case PodStatusChanged():
                key = f"{output.namespace}/{output.name}"
                note_status(self.found.statuses.setdefault(key, []), output.at, emulated_status(output.status))
            case PodFinallyDeleted():
                self.found.deleted[f"{output.namespace}/{output.name}"] = output.at
                self._fleet.pod_gone(output.uid)
            case NodeImagesChanged():
                images = [i for i in output.images if {n.rpartition("@")[2] for n in i.names} & self._case_digests]
                self.found.images.append((output.at, [i.names for i in images], [i.size_bytes for i in images]))
            case PullFinished():
                self.found.pulls.append(output)
            case ImageRemoved():
                self.found.removed.append(output)
            case _:
                pass


def _helper() -> RemoteImage:
    digest = "sha256:e32c85fe42d6bbf1348d6180ca25985fb33f3b377a70903ee051a6eed9359671"
    return RemoteImage(digest, (Layer("helper", 327_000),), 972)


@cache
def trace(case: str) -> Trace:
    """A recorded case, read once."""
    return Trace(case)


@dataclass(frozen=True)
class Match:
    """The run of the model that is nearest to a case, and what differs in it."""

    recorded: Account
    emulated: Account
    differences: list[str]
    kubelet: Kubelet


@cache
def nearest(case: str) -> Match:
    """The model's run that is nearest to the case.

    A trace does not tell at which fraction of a second its kubelet relisted, whether its loop was quick enough to
    make two syncs of two changes, nor whether the helper's process ended before that was looked at: so these are
    tried. Everything else is given or has to follow.
    """
    recorded = trace(case).account()
    best: Match | None = None
    for run_seconds, joins, step in product((0.02, 0.18), (True, False), range(40)):
        emulation = Emulation(trace(case), relist_phase=step / 40, relist_joins=joins, run_seconds=run_seconds)
        emulated = emulation.run()
        differences = compare(recorded, emulated) or ([] if case in ORDER_IS_CHANCE else late(recorded, emulated))
        if best is None or len(differences) < len(best.differences):
            best = Match(recorded, emulated, differences, emulation.kubelet)
        if not differences:
            break
    assert best is not None
    return best


def compare(recorded: Account, emulated: Account) -> list[str]:
    """Differences in events, statuses and counters; order and counts included, times aside."""
    found: list[str] = []
    for key in sorted(recorded.statuses.keys() | emulated.statuses.keys()):
        statuses = recorded.statuses.get(key, [])
        seen = written(statuses, emulated.statuses.get(key, []))
        found += _difference(f"{key} status", [s.value for s in statuses], [s.value for s in seen])
        found += _difference(
            f"{key} event", comparable(recorded.events.get(key, [])), comparable(emulated.events.get(key, []))
        )
    if counters(recorded.counters) != counters(emulated.counters):
        found.append(f"counters: recorded {counters(recorded.counters)}, emulated {counters(emulated.counters)}")
    return found


def late(recorded: Account, emulated: Account) -> list[str]:
    """Events of equal sequences whose times are too far apart."""
    found: list[str] = []
    for key, events in recorded.events.items():
        for one, other in zip(events, emulated.events[key], strict=True):
            if abs(one.t - other.t) > TIME_TOLERANCE + TIME_TOLERANCE_SHARE * one.t:
                found.append(f"{key}: recorded {one}, emulated at {other.t:.3f}")
    return found


def counters(values: dict[str, float]) -> dict[str, float]:
    """Requests for images by label, and pulls; zeros left out."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if name.startswith("image_manager_ensure_image_requests_total"):
            found[",".join(sorted(name.partition("{")[2].rstrip("}").split(",")))] = value
        elif name.startswith("image_pull_duration_seconds_count"):
            found["pulls"] = found.get("pulls", 0) + value
    return {name: value for name, value in found.items() if value}


def comparable(events: list[EventSeen]) -> list[tuple[object, ...]]:
    """Events as they have to agree.

    Once a tenth message made events of one type and reason similar, client-go drops one of the ten at random (PopAny
    of a set): which later ones are merged, and so their counts, is chance.
    """
    merged: set[tuple[str, str]] = set()
    found: list[tuple[object, ...]] = []
    for event in events:
        if event.message.startswith(COMBINED):
            merged.add((event.type, event.reason))
        if (event.type, event.reason) in merged:
            found.append((event.type, event.reason, event.message.removeprefix(COMBINED)))
        else:
            found.append(event.key)
    return found


def written(recorded: list[StatusSeen], emulated: list[StatusSeen]) -> list[StatusSeen]:
    """Emulated statuses without those that a slower status manager would have skipped.

    The kubelet writes the latest status only: one that stood for a moment may never have been sent.
    """
    kept: list[StatusSeen] = []
    wanted = [status.value for status in recorded]
    for status, following in zip(emulated, [*emulated[1:], None], strict=True):
        expected = wanted[len(kept)] if len(kept) < len(wanted) else None
        if status.value != expected and following is not None and following.t - status.t < MOMENT:
            continue
        kept.append(status)
    return kept


def _difference(what: str, recorded: list[tuple[object, ...]], emulated: list[tuple[object, ...]]) -> list[str]:
    found = [
        f"{what} {n}: recorded {a}, emulated {b}"
        for n, (a, b) in enumerate(zip(recorded, emulated, strict=False))
        if a != b
    ]
    found += [f"{what}: recorded only {value}" for value in recorded[len(emulated) :]]
    found += [f"{what}: emulated only {value}" for value in emulated[len(recorded) :]]
    return found
