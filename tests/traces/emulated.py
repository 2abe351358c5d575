"""Runs the emulated kubelet through a recorded case."""

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from prewarm.simulation.fleet import Fleet
from prewarm.simulation.manifests import PREFIX, pod_from_manifest
from prewarm.simulation.outputs import (
    EventEmitted,
    ImageRemoved,
    NodeImagesChanged,
    Output,
    PodFinallyDeleted,
    PodStatusChanged,
    PullFinished,
)
from prewarm.simulation.registry import Behaviour, Layer, Registries, Registry, RemoteImage
from prewarm.simulation.specs import NodeProfile, PullSecret, Timings
from tests.traces.account import Account, EventSeen, Json, emulated_status, normal, note_status
from tests.traces.recorded import RETRY_GAP, Trace

RIGHT = "user:right"
HELPER = "helper.test/helper:v1"


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
