"""The emulated kubelet where no trace tells: admission, restarts, readiness, image changes, garbage collection."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from msgspec.structs import replace

from prewarm.model.images import PullPolicy
from prewarm.model.pods import Affinity, ContainerPhase, Resources, Taint, TaintEffect, Toleration
from prewarm.model.selectors import NodeSelectorTerm, Operator, Requirement
from prewarm.simulation.fleet import Fleet
from prewarm.simulation.outputs import (
    DiskPressureChanged,
    EventEmitted,
    ImageRemoved,
    NodeImagesChanged,
    Output,
    PodFinallyDeleted,
    PodStatusChanged,
    PullFinished,
)
from prewarm.simulation.registry import Layer, Registries, RemoteImage, synthetic_image
from prewarm.simulation.specs import (
    ContainerSpec,
    ImageVolume,
    NodeProfile,
    PodSpec,
    RestartPolicy,
)

MB = 1_000_000
IMAGE = "registry.example/app:v1"
NODE = NodeProfile("node", bandwidth=10 * MB, labels={"zone": "a"})


class Scene:
    """One node, and what it did."""

    def __init__(self, node: NodeProfile = NODE) -> None:
        self.registries = Registries()
        self.push(IMAGE, 10 * MB)
        self.fleet = Fleet(self.registries)
        self.kubelet = self.fleet.add_node(node)
        self.outputs: list[Output] = []

    def push(self, reference: str, size: int) -> RemoteImage:
        image = synthetic_image(reference, [size], other_bytes=0)
        self.registries.push(reference, image)
        return image

    def until(self, now: float) -> None:
        self.outputs += self.fleet.advance(now)

    def after(self, seconds: float) -> None:
        self.until(self.fleet.now + seconds)

    def statuses(self, name: str = "pod") -> list[PodStatusChanged]:
        return [o for o in self.outputs if isinstance(o, PodStatusChanged) and o.name == name]

    def events(self, name: str = "pod") -> list[EventEmitted]:
        return [o for o in self.outputs if isinstance(o, EventEmitted) and o.pod == name]

    @property
    def pulls(self) -> list[PullFinished]:
        return [o for o in self.outputs if isinstance(o, PullFinished)]


def pod(name: str = "pod", image: str = IMAGE, **container: object) -> PodSpec:
    return PodSpec("default", name, name, "node", (replace(ContainerSpec("app", image), **container),))


def first_ready(scene: Scene) -> float:
    return min(s.at for s in scene.statuses() if any(c.type == "Ready" and c.status for c in s.status.conditions))


def test_a_pod_is_ready_after_its_startup_time() -> None:
    scene = Scene()
    scene.fleet.pod_bound(pod(startup_seconds=5.0))
    scene.until(20)
    (started,) = [event.at for event in scene.events() if event.reason == "Started"]
    assert first_ready(scene) == started + 5.0
    running = next(s for s in scene.statuses() if s.status.containers[0].phase is ContainerPhase.RUNNING)
    assert not running.status.containers[0].ready


REJECTIONS: list[tuple[str, Callable[[PodSpec], PodSpec]]] = [
    ("OutOfcpu", lambda p: replace(p, requests=Resources(milli_cpu=8001))),
    ("OutOfmemory", lambda p: replace(p, requests=Resources(memory=33 << 30))),
    ("NodeAffinity", lambda p: replace(p, node_selector=(("zone", "b"),))),
    (
        "NodeAffinity",
        lambda p: replace(
            p,
            affinity=Affinity(
                required_node_terms=(NodeSelectorTerm((Requirement("zone", Operator.IN, ("b",)),)),),
            ),
        ),
    ),
]


@pytest.mark.parametrize(("reason", "change"), REJECTIONS)
def test_a_pod_that_does_not_fit_is_rejected(reason: str, change: Callable[[PodSpec], PodSpec]) -> None:
    scene = Scene()
    scene.fleet.pod_bound(change(pod()))
    scene.until(20)
    (status,) = scene.statuses()
    assert (status.status.phase, status.status.reason) == ("Failed", reason)
    assert status.status.message.startswith("Pod was rejected: ")
    assert [(event.type, event.reason) for event in scene.events()] == [("Warning", reason)]
    assert not scene.pulls


def test_ended_pods_make_room_for_others() -> None:
    scene = Scene(replace(NODE, max_pods=1))
    ending = replace(pod("one", run_seconds=1.0), restart_policy=RestartPolicy.NEVER)
    scene.fleet.pod_bound(ending)
    scene.fleet.pod_bound(pod("two"))
    scene.until(20)
    scene.fleet.pod_bound(pod("three"))
    scene.until(40)
    assert scene.statuses("two")[-1].status.reason == "OutOfpods"
    assert scene.statuses("three")[-1].status.phase == "Running"


def test_a_pod_that_is_seen_to_have_ended_makes_room_though_its_object_is_there() -> None:
    """The scheduler counts it no more from then on."""
    scene = Scene(replace(NODE, max_pods=1))
    scene.fleet.pod_bound(pod("one"))
    scene.until(20)
    scene.fleet.pod_deleted("one", 30.0, 2)
    while scene.statuses("one")[-1].status.phase not in {"Succeeded", "Failed"}:
        scene.after(0.01)
    scene.fleet.pod_bound(pod("two"))
    scene.after(20)
    assert scene.statuses("two")[-1].status.phase == "Running"


@pytest.mark.parametrize(
    ("effect", "phase"), [(TaintEffect.NO_EXECUTE, "Failed"), (TaintEffect.NO_SCHEDULE, "Running")]
)
def test_only_no_execute_taints_count(effect: TaintEffect, phase: str) -> None:
    scene = Scene(replace(NODE, taints=(Taint("dedicated", "x", effect),)))
    scene.fleet.pod_bound(pod())
    tolerant = replace(pod("tolerant"), tolerations=(Toleration("dedicated", "Exists"),))
    scene.fleet.pod_bound(tolerant)
    scene.until(20)
    assert scene.statuses()[-1].status.phase == phase
    assert scene.statuses("tolerant")[-1].status.phase == "Running"


def test_an_image_changed_in_place_kills_first_and_pulls_then() -> None:
    scene = Scene()
    scene.push("registry.example/app:v2", 50 * MB)
    scene.fleet.pod_bound(pod())
    scene.until(30)
    scene.outputs.clear()
    scene.fleet.pod_changed(replace(pod(image="registry.example/app:v2"), generation=2))
    scene.until(60)
    assert [event.reason for event in scene.events()] == ["Killing", "Pulling", "Pulled", "Created", "Started"]
    assert scene.events()[0].message == "Container app definition changed, will be restarted"
    (container,) = scene.statuses()[-1].status.containers
    assert (container.restart_count, container.phase, container.ready) == (1, "Running", True)
    assert scene.statuses()[-1].status.observed_generation == 2


def test_a_container_that_keeps_ending_waits_longer_each_time() -> None:
    scene = Scene()
    scene.fleet.pod_bound(pod(run_seconds=1.0, exit_code=1))
    scene.until(200)
    starts = [event.at for event in scene.outputs if isinstance(event, EventEmitted) and event.reason == "Started"]
    waits = [after - before for before, after in pairwise(starts)]
    assert waits[0] < 3
    assert 10 <= waits[1] <= 27
    assert 20 <= waits[2] <= 37
    assert "CrashLoopBackOff" in {c.reason for s in scene.statuses() for c in s.status.containers}
    assert scene.statuses()[-1].status.containers[0].restart_count == len(starts) - 1


def test_deletion_waits_for_the_containers_and_then_asks_for_the_final_delete() -> None:
    scene = Scene()
    scene.fleet.pod_bound(pod(stop_seconds=3.0))
    scene.until(10)
    scene.fleet.pod_deleted("pod", 30.0, 2)
    scene.until(30)
    (gone,) = [o for o in scene.outputs if isinstance(o, PodFinallyDeleted)]
    assert 13 <= gone.at <= 15
    assert scene.statuses()[-1].status.phase == "Succeeded"
    scene.fleet.pod_gone("pod")
    scene.until(31)
    assert scene.kubelet.pods == 0


def test_a_sidecar_starts_before_the_others_and_keeps_running() -> None:
    scene = Scene()
    sidecar = ContainerSpec("proxy", IMAGE, sidecar=True)
    main = ContainerSpec("app", IMAGE, run_seconds=1.0)
    spec = PodSpec("default", "pod", "pod", "node", (main,), (sidecar,), restart_policy=RestartPolicy.NEVER)
    scene.fleet.pod_bound(spec)
    scene.until(20)
    started = [event.field_path for event in scene.events() if event.reason == "Started"]
    assert started == ["spec.initContainers{proxy}", "spec.containers{app}"]
    assert scene.statuses()[-1].status.phase == "Succeeded"


def test_an_init_container_runs_once_and_again_only_if_it_failed() -> None:
    scene = Scene()
    init = ContainerSpec("migrate", IMAGE, run_seconds=1.0)
    scene.fleet.pod_bound(replace(pod(), init_containers=(init,)))
    scene.fleet.pod_bound(replace(pod("failing"), init_containers=(replace(init, exit_code=1),)))
    scene.until(60)
    started = [event.field_path for event in scene.events() if event.reason == "Started"]
    assert started == ["spec.initContainers{migrate}", "spec.containers{app}"]
    assert scene.statuses()[-1].status.phase == "Running"
    again = {event.field_path for event in scene.events("failing") if event.reason in {"Started", "BackOff"}}
    assert again == {"spec.initContainers{migrate}"}


def test_layers_that_are_there_are_not_downloaded_again() -> None:
    scene = Scene()
    base = Layer("sha256:base", 40 * MB)
    for tag in ("v1", "v2"):
        image = RemoteImage(f"sha256:{tag}", (base, Layer(f"sha256:top-{tag}", 5 * MB)), 0)
        scene.registries.push(f"registry.example/layered:{tag}", image)
        scene.fleet.pod_bound(pod(tag, f"registry.example/layered:{tag}"))
        scene.after(30)
    assert [pull.downloaded_bytes for pull in scene.pulls] == [45 * MB, 5 * MB]
    assert scene.kubelet.store.compressed_bytes == 50 * MB


def test_policy_always_asks_the_registry_and_downloads_nothing() -> None:
    scene = Scene()
    scene.kubelet.preload(IMAGE, scene.push(IMAGE, 10 * MB))
    scene.fleet.pod_bound(pod(pull_policy=PullPolicy.ALWAYS))
    scene.until(10)
    (pull,) = scene.pulls
    assert pull.downloaded_bytes == 0
    assert pull.at - pull.started_at < 0.1


def test_a_name_that_is_no_reference_is_told() -> None:
    scene = Scene()
    scene.fleet.pod_bound(pod(image="Not A Reference"))
    scene.until(5)
    assert scene.statuses()[-1].status.containers[0].reason == "InvalidImageName"
    assert "InspectFailed" in {event.reason for event in scene.events()}


def test_node_status_lists_the_largest_images() -> None:
    scene = Scene(replace(NODE, status_max_images=3))
    for size in range(1, 6):
        reference = f"registry.example/size-{size}:v1"
        scene.kubelet.preload(reference, scene.push(reference, size * MB))
    scene.until(60)
    listed = [o for o in scene.outputs if isinstance(o, NodeImagesChanged)][-1]
    assert [image.size_bytes for image in listed.images] == [5 * MB, 4 * MB, 3 * MB]


def test_a_moved_tag_leaves_its_old_image_behind() -> None:
    scene = Scene()
    old = scene.push(IMAGE, MB)
    scene.kubelet.preload(IMAGE, old)
    new = synthetic_image("new", [2 * MB])
    scene.registries.push(IMAGE, new)
    scene.fleet.pod_bound(pod(pull_policy=PullPolicy.ALWAYS))
    scene.until(10)
    tags = {image.remote.digest: image.tags for image in scene.kubelet.store.images()}
    assert tags == {old.digest: [], new.digest: [IMAGE]}


def test_thresholds_decide_when_images_are_collected() -> None:
    node = replace(NODE, bandwidth=1000 * MB, image_disk=1000.0 * MB, disk_expansion=1.0, gc_high_percent=60)
    scene = Scene(replace(node, gc_low_percent=30))
    for number in range(7):
        reference = f"registry.example/large-{number}:v1"
        scene.push(reference, 100 * MB)
        spec = replace(pod(f"pod-{number}", reference, run_seconds=0.1), restart_policy=RestartPolicy.NEVER)
        scene.fleet.pod_bound(spec)
        scene.after(10)
    kept = scene.kubelet.store.disk_bytes
    scene.until(700)
    assert scene.kubelet.store.disk_bytes == kept
    for number in range(6):
        scene.fleet.pod_gone(f"pod-{number}")
    scene.until(2000)
    removed = [o for o in scene.outputs if isinstance(o, ImageRemoved)]
    assert len(removed) == 4
    assert scene.kubelet.store.disk_bytes == 300 * MB


def test_disk_pressure_rejects_pods_until_it_has_passed() -> None:
    node = replace(NODE, image_disk=100.0 * MB, disk_expansion=1.0)
    scene = Scene(node)
    scene.kubelet.preload(IMAGE, scene.push(IMAGE, 10 * MB))
    scene.kubelet.collector.fill(88.0 * MB)
    scene.until(20)
    scene.fleet.pod_bound(pod("during"))
    scene.kubelet.collector.fill(0.0)
    scene.until(400)
    scene.fleet.pod_bound(pod("after"))
    scene.until(420)
    changes = [o.pressure for o in scene.outputs if isinstance(o, DiskPressureChanged)]
    assert changes == [True, False]
    assert scene.statuses("during")[-1].status.reason == "Evicted"
    assert scene.statuses("after")[-1].status.phase == "Running"


def test_a_running_pod_keeps_asking_for_its_image_volumes() -> None:
    """A bug up to at least 1.36.3 (kubernetes/kubernetes#138644), which event readers have to bear."""
    scene = Scene()
    spec = replace(pod(), image_volumes=(ImageVolume("data", IMAGE),), has_volumes=True)
    scene.fleet.pod_bound(spec)
    scene.until(400)
    again = [e for e in scene.events() if not e.field_path and "already present" in e.message]
    assert again[-1].count >= 5


def test_pods_of_a_kubelet_before_are_taken_over() -> None:
    scene = Scene()
    scene.fleet.pod_bound(pod())
    scene.until(10)
    status = scene.statuses()[-1].status
    other = Scene()
    other.kubelet.preload(IMAGE, other.push(IMAGE, 10 * MB))
    other.fleet.pod_bound(pod(), status.containers, -10.0)
    other.until(30)
    assert not other.pulls
    assert not [event for event in other.events() if event.reason == "Started"]
    assert other.statuses()[-1].status.containers == status.containers


def test_a_node_that_comes_again_under_its_name_starts_from_nothing() -> None:
    scene = Scene()
    scene.fleet.pod_bound(pod())
    scene.until(0.8)
    scene.fleet.remove_node("node")
    scene.until(100)
    assert not scene.pulls
    scene.fleet.add_node(NODE)
    scene.fleet.pod_bound(pod("next"))
    scene.until(120)
    assert [pull.downloaded_bytes for pull in scene.pulls] == [10 * MB]
    assert scene.statuses("next")[-1].status.phase == "Running"


@pytest.mark.parametrize("brings", [False, True])
def test_an_image_that_holds_no_program_starts_what_its_container_brings(brings: bool) -> None:
    scene = Scene()
    scene.registries.push(IMAGE, replace(synthetic_image(IMAGE, [MB]), has_programs=False))
    brought = pod(command="/prewarm/hold", brings_program=brings, run_seconds=0.1)
    scene.fleet.pod_bound(replace(brought, restart_policy=RestartPolicy.NEVER))
    scene.until(20)
    ended = scene.statuses()[-1].status.containers[0]
    assert (ended.reason, ended.exit_code) == (("Completed", 0) if brings else ("StartError", 128))


@pytest.mark.parametrize(("architecture", "there"), [("amd64", True), ("arm64", False)])
def test_an_index_has_something_for_its_architectures_alone(architecture: str, there: bool) -> None:
    scene = Scene(replace(NODE, labels={"kubernetes.io/arch": architecture}))
    scene.registries.push(IMAGE, replace(synthetic_image(IMAGE, [MB]), architectures=frozenset({"amd64"})))
    scene.fleet.pod_bound(pod())
    scene.until(20)
    assert bool(scene.pulls[0].error) is not there
    assert ("no match for platform" in scene.pulls[0].error) is not there
