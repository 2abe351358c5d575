"""Image garbage collection and disk pressure (pkg/kubelet/images/image_gc_manager.go, pkg/kubelet/eviction)."""

from collections.abc import Callable
from typing import Protocol

from prewarm.simulation.agenda import Agenda
from prewarm.simulation.outputs import ImageRemoved, Output
from prewarm.simulation.specs import NodeProfile
from prewarm.simulation.store import ImageStore, StoredImage

_EVICTION_PERIOD = 10.0
"""monitoringInterval of the eviction manager."""
_PRESSURE_HOLD = 300.0
"""evictionPressureTransitionPeriod: how long the condition stays after the signal has gone."""


class PressureListener(Protocol):
    """Told when disk pressure begins or ends."""

    def __call__(self, *, pressure: bool, reclaim: bool) -> None:
        """`reclaim`: the containers of pods that have ended are deleted, and protect nothing any more."""


class ImageCollector:
    """Deletes images: by thresholds every five minutes, or all unused ones at once under disk pressure."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        profile: NodeProfile,
        store: ImageStore,
        used: Callable[[], tuple[list[StoredImage], list[StoredImage]]],
        emit: Callable[[Output], None],
        changed: Callable[[], None],
        pressure: PressureListener,
        evict: Callable[[str], object],
        phase: float,
    ) -> None:
        self._agenda, self._profile, self._store = agenda, profile, store
        self._used, self._emit, self._changed, self._pressure, self._evict = used, emit, changed, pressure, evict
        self.other_bytes = 0.0
        """What others than images take on the image file system."""
        self.disk_pressure = False
        self._calm_since: float | None = None
        self._watching = False
        self.collected = 0
        """kubelet_image_garbage_collected_total."""
        self._timers = {"collect": agenda.after(phase, self._collect)}

    def stop(self) -> None:
        """Look at the disk no more."""
        for timer in self._timers.values():
            timer.cancel()

    @property
    def disk_used(self) -> float:
        """Bytes in use on the image file system."""
        return self._store.disk_bytes + self.other_bytes

    def fill(self, other_bytes: float) -> None:
        """Set what others take."""
        self.other_bytes = other_bytes
        self.check_disk()

    def _collect(self) -> None:
        self._timers["collect"] = self._agenda.after(self._profile.gc_period, self._collect)
        profile, now = self._profile, self._agenda.now
        unused = self._detect()
        percent = self.disk_used * 100 / profile.image_disk
        if percent < profile.gc_high_percent:
            return
        to_free = self.disk_used - profile.image_disk * profile.gc_low_percent / 100
        freed = 0.0
        for image in unused:
            if freed >= to_free:
                break
            if image.last_used_at == now or image.detected_at is None:
                continue
            if now - image.detected_at < profile.gc_minimum_age:
                continue
            self.remove(image)
            freed += image.remote.size

    def _detect(self) -> list[StoredImage]:
        """Note what is new and what is used; unused images in the order in which they go.

        byLastUsedAndDetected.Less: never used ones first, then by detection.
        """
        now = self._agenda.now
        running, ended = self._used()
        used = {id(image) for image in (*running, *ended)}
        unused = []
        for image in self._store.images():
            if image.detected_at is None:
                image.detected_at = now
            if id(image) in used:
                image.last_used_at = now
            else:
                unused.append(image)
        return sorted(unused, key=lambda i: (i.last_used_at or float("-inf"), i.detected_at or 0.0))

    def remove(self, image: StoredImage) -> None:
        """Remove an image, whoever asked for it."""
        names = (*image.digests, *image.tags)
        self._store.remove(image)
        self.collected += 1
        self._emit(ImageRemoved(self._agenda.now, self._profile.name, image.remote.digest, names))
        self._changed()

    # Disk pressure

    def check_disk(self) -> None:
        """Look at the disk after it was written to; while it is too full the eviction manager looks every 10 s."""
        if not self._watching and self._too_full():
            self._watching = True
            self._timers["reclaim"] = self._agenda.after(_EVICTION_PERIOD / 3, self._reclaim)

    def _too_full(self) -> bool:
        available = self._profile.image_disk - self.disk_used
        return available < self._profile.image_disk * self._profile.eviction_percent / 100

    def _reclaim(self) -> None:
        """DeleteAllUnusedContainers, then DeleteUnusedImages: those that finished pods protected go too."""
        if not self._too_full():
            self._calm_down()
            return
        self._calm_since = None
        began = not self.disk_pressure
        self.disk_pressure = True
        if began:
            self._pressure(pressure=True, reclaim=True)
        running, _ = self._used()
        used = {id(image) for image in running}
        for image in self._store.images():
            if id(image) not in used:
                self.remove(image)
        if self._too_full():
            self._evict(
                "The node was low on resource: ephemeral-storage. "
                f"Threshold quantity: {int(self._profile.image_disk * self._profile.eviction_percent / 100)}, "
                f"available: {max(0, int((self._profile.image_disk - self.disk_used) / 1024))}Ki. "
            )
        self._timers["reclaim"] = self._agenda.after(_EVICTION_PERIOD, self._reclaim)

    def _calm_down(self) -> None:
        now = self._agenda.now
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since >= _PRESSURE_HOLD:
            self.disk_pressure = False
            self._watching = False
            self._pressure(pressure=False, reclaim=False)
            return
        self._timers["reclaim"] = self._agenda.after(_EVICTION_PERIOD, self._reclaim)
