"""One emulated kubelet: its pods, its relist and ticks, its images and what node status says of them."""

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from prewarm.model.images import parse_reference
from prewarm.model.pods import ContainerPhase, ContainerStatus, PodPhase
from prewarm.model.removals import Removal, RemovalReport
from prewarm.runtime.removal import remove_images
from prewarm.simulation import admission
from prewarm.simulation.agenda import FIRST, Agenda, Timer
from prewarm.simulation.bandwidth import Egress, NodeLink
from prewarm.simulation.garbage import ImageCollector
from prewarm.simulation.messages import EventType
from prewarm.simulation.outputs import (
    Condition,
    ConditionType,
    DiskPressureChanged,
    NodeImagesChanged,
    Output,
    PodFinallyDeleted,
    PodStatus,
    PodStatusChanged,
)
from prewarm.simulation.pulls import ImageManager
from prewarm.simulation.recorder import Recorder
from prewarm.simulation.registry import Registries, RemoteImage
from prewarm.simulation.removal import StoreRuntime
from prewarm.simulation.specs import Chance, NodeProfile, PodSpec, PullSecret
from prewarm.simulation.store import ImageStore, StoredImage
from prewarm.simulation.worker import PodWorker, Stage


class Kubelet:
    """Plays the kubelet of one node. Inputs are methods; what it does goes to `emit` as values."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        profile: NodeProfile,
        registries: Registries,
        egress: Callable[[str], Egress],
        secrets: Mapping[tuple[str, str], PullSecret],
        emit: Callable[[Output], None],
        chance: Chance,
    ) -> None:
        self.agenda, self.profile, self.chance = agenda, profile, chance
        self._registries, self._egress, self._secrets, self._emit = registries, egress, secrets, emit
        self._link = NodeLink(profile.bandwidth)
        self.store = ImageStore(profile.disk_expansion)
        timings = profile.timings
        self._relist_phase = chance(profile.name, "relist") * timings.relist
        self._tick_phase = chance(profile.name, "tick") * timings.tick
        self._list_phase = chance(profile.name, "list") * timings.image_list
        self._status_phase = chance(profile.name, "status") * timings.node_status
        self._workers: dict[str, PodWorker] = {}
        self._addresses = 1
        self._dirty: dict[str, PodWorker] = {}
        self._relist_timer: Timer | None = None
        self._images_timer: Timer | None = None
        self._images_shown: object = None
        self.running = True
        self._start_services()
        self.collector = ImageCollector(
            agenda=agenda,
            profile=profile,
            store=self.store,
            used=self._used_images,
            emit=emit,
            changed=self._images_changed,
            pressure=self._pressure,
            evict=self.evict,
            phase=chance(profile.name, "gc") * profile.gc_period,
        )

    def _start_services(self) -> None:
        self.recorder = Recorder(self.profile.name, self._emit)
        self.images = ImageManager(
            agenda=self.agenda,
            profile=self.profile,
            store=self.store,
            link=self._link,
            registries=self._registries,
            egress=self._egress,
            secrets=self._secrets,
            record=self.record,
            report=self._emit,
            stored=self._stored,
        )

    # Inputs

    def bind(
        self,
        spec: PodSpec,
        known: tuple[ContainerStatus, ...] = (),
        started_at: float | None = None,
        *,
        finished: bool = False,
    ) -> None:
        """A pod was bound to this node; `known` are containers that a kubelet before this one had started."""
        if spec.uid in self._workers:
            return
        if started_at is None and not finished:
            rejection = self._admit(spec)
            if rejection is not None:
                self._reject(spec, rejection)
                return
        self._addresses += 1
        worker = PodWorker(self, spec, f"{self.profile.pod_ip_prefix}{self._addresses % 250 + 2}")
        self._workers[spec.uid] = worker
        if started_at is not None:
            worker.resume(known, started_at)
            for container in (*spec.init_containers, *spec.containers):
                if container.name in worker.containers.now:
                    stored = self.store.find(parse_reference(container.image))
                    if stored is not None:
                        worker.containers.images[container.name] = stored
        if finished:
            worker.stage = Stage.DONE
        elif self.running:
            worker.begin()

    def _admit(self, spec: PodSpec) -> admission.Rejection | None:
        # filterOutInactivePods: a pod whose containers have all been stopped takes no room, though its object is there.
        ended = (Stage.TERMINATED, Stage.DONE)
        active = [worker.spec.requests for worker in self._workers.values() if worker.stage not in ended]
        return admission.check(spec, self.profile, active, disk_pressure=self.collector.disk_pressure)

    def change(self, spec: PodSpec) -> None:
        """A pod's spec changed."""
        worker = self._workers.get(spec.uid)
        if worker is not None and worker.spec != spec:
            worker.change(spec)

    def delete(self, uid: str, grace: float, generation: int) -> None:
        """A pod is being deleted; the pull in progress is not stopped by that, nor are those of its other images."""
        worker = self._workers.get(uid)
        if worker is not None and not worker.deleting:
            worker.spec = _with_generation(worker.spec, generation)
            worker.terminate(grace)

    def remove(self, uid: str) -> None:
        """A pod's object is gone."""
        worker = self._workers.get(uid)
        if worker is None:
            return
        worker.terminate(1.0, gone=True)
        if worker.stage is Stage.DONE:
            self._forget(worker)

    def restart(self, down_seconds: float) -> None:
        """Stop the kubelet and start it again: pulls, back-off, counters and event counts start from nothing."""
        self.running = False
        for worker in self._workers.values():
            worker.cancel()
        if self._relist_timer is not None:
            self._relist_timer.cancel()
            self._relist_timer = None
        self._start_services()
        self.agenda.after(down_seconds + self.profile.timings.restart, self._started)

    def stop(self) -> None:
        """End for good: nothing is done or said any more."""
        self.running = False
        for worker in self._workers.values():
            worker.cancel()
            worker.stage = Stage.DONE
        self._workers.clear()
        self._dirty.clear()
        self.collector.stop()
        for timer in (self._relist_timer, self._images_timer):
            if timer is not None:
                timer.cancel()

    def _started(self) -> None:
        self.running = True
        for worker in list(self._workers.values()):
            worker.request()
        if self._dirty:
            self._plan_relist()

    def preload(self, reference: str, remote: RemoteImage) -> None:
        """Put an image on the node without the kubelet: present, with no pull record."""
        self.store.add(parse_reference(reference), remote)
        self._images_changed()

    # What workers ask for

    def emit(self, output: PodStatusChanged | PodFinallyDeleted) -> None:
        """Hand an output on."""
        self._emit(output)

    def record(self, pod: PodSpec, event_type: EventType, reason: str, message: str, field_path: str = "") -> None:
        """Record an event."""
        self.recorder.record(self.agenda.now, pod, event_type, reason, message, field_path)

    def next_relist(self, after: float) -> float:
        """The first relist later than a time."""
        return _next_multiple(after, self._relist_phase, self.profile.timings.relist)

    def next_tick(self, at: float) -> float:
        """The first tick not before a time."""
        period = self.profile.timings.tick
        return self._tick_phase + math.ceil((at - self._tick_phase) / period) * period

    def changed(self, worker: PodWorker) -> None:
        """A container changed: look at it at the next relist."""
        self._dirty[worker.spec.uid] = worker
        if self.running and self._relist_timer is None:
            self._plan_relist()

    def done(self, worker: PodWorker) -> None:
        """A pod has ended: its containers stay, and protect their images, until the object is gone."""
        self.images.forget(worker.spec.uid)
        if worker.gone:
            self._forget(worker)

    def _forget(self, worker: PodWorker) -> None:
        self._workers.pop(worker.spec.uid, None)
        self._dirty.pop(worker.spec.uid, None)

    def _plan_relist(self) -> None:
        self._relist_timer = self.agenda.at(self.next_relist(self.agenda.now), self._relist, FIRST)

    def _relist(self) -> None:
        self._relist_timer = None
        dirty, self._dirty = self._dirty, {}
        for worker in dirty.values():
            worker.relisted()

    def _reject(self, spec: PodSpec, rejection: admission.Rejection) -> None:
        now = self.agenda.now
        self.record(spec, EventType.WARNING, rejection.reason, rejection.message)
        status = PodStatus(
            PodPhase.FAILED,
            now,
            reason=rejection.reason,
            message=f"Pod was rejected: {rejection.message}",
            host_ip=self.profile.host_ip,
            observed_generation=spec.generation,
            conditions=tuple(
                Condition(kind, False, now, "PodFailed")
                for kind in ConditionType
                if kind in {ConditionType.READY, ConditionType.CONTAINERS_READY}
            ),
        )
        self._emit(PodStatusChanged(now, spec.namespace, spec.name, spec.uid, self.profile.name, status))

    # Images

    def _stored(self) -> None:
        self._images_changed()
        self.collector.check_disk()

    def _images_changed(self) -> None:
        """Node status shows it late: the image list is up to 30 s old, the status loop runs each 10 s."""
        if self._images_timer is not None:
            return
        timings = self.profile.timings
        listed = _next_multiple(self.agenda.now, self._list_phase, timings.image_list)
        self._images_timer = self.agenda.at(listed, self._list_images)

    def _list_images(self) -> None:
        self._images_timer = None
        images = self.store.status(self.profile.status_max_images)
        now = self.agenda.now

        def show() -> None:
            if images != self._images_shown:
                self._images_shown = images
                self._emit(NodeImagesChanged(self.agenda.now, self.profile.name, images))

        self.agenda.at(_next_multiple(now, self._status_phase, self.profile.timings.node_status), show)

    def _used_images(self) -> tuple[list[StoredImage], list[StoredImage]]:
        """Images of containers that run, and of those that ended while their pod's object is there."""
        running: list[StoredImage] = []
        ended: list[StoredImage] = []
        for worker in self._workers.values():
            for name, image in worker.containers.images.items():
                status = worker.containers.now.get(name.partition("/")[0])
                alive = status is not None and status.phase is ContainerPhase.RUNNING
                (running if alive else ended).append(image)
        return running, ended

    def remove_images(self, removals: Sequence[Removal]) -> RemovalReport:
        """Have the runtime remove images, as the pods do that speak to it."""

        def used() -> list[StoredImage]:
            running, ended = self._used_images()
            return running + ended

        return remove_images(StoreRuntime(self.store, used, self.collector.remove), removals)

    def _pressure(self, *, pressure: bool, reclaim: bool) -> None:
        """Disk pressure began or ended; reclaiming deletes the containers of pods that have ended."""
        self._emit(DiskPressureChanged(self.agenda.now, self.profile.name, pressure))
        if reclaim:
            for worker in self._workers.values():
                if worker.stage is Stage.DONE:
                    worker.containers.images.clear()

    def evict(self, message: str) -> bool:
        """Evict one pod that runs, the lowest priority first; False if there is none."""
        candidates = [w for w in self._workers.values() if w.stage is Stage.SYNCING]
        if not candidates:
            return False
        worker = min(candidates, key=lambda w: (w.spec.priority, w.spec.uid))
        message += "".join(
            f"Container {c.name} was using 20Ki, request is 0, has larger consumption of ephemeral-storage. "
            for c in worker.spec.containers
        )
        self.record(worker.spec, EventType.WARNING, "Evicted", message)
        worker.disrupted = True
        worker.terminate(0.0, failure=("Evicted", message))
        return True

    @property
    def pods(self) -> int:
        """Pods whose objects are there."""
        return len(self._workers)


def _next_multiple(now: float, phase: float, period: float) -> float:
    """The first turn of a loop that is later than `now`, by more than rounding."""
    at = phase + (math.floor((now - phase) / period) + 1) * period
    return at if at > now + 1e-6 else at + period


def _with_generation(spec: PodSpec, generation: int) -> PodSpec:
    return replace(spec, generation=generation)
