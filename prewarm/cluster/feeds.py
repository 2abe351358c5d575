"""A kind's decoder joined with the place where its objects go: bytes in, a changed store out. No I/O."""

from collections.abc import Collection
from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from prewarm.cluster.decoding.kinds import Kind, Kinds
from prewarm.cluster.errors import ApiError, decode_status
from prewarm.cluster.sinks import Sink
from prewarm.cluster.store import Store
from prewarm.model.intents import Resource
from prewarm.model.snapshot import ObjectKey

T = TypeVar("T")

KUBELET_PULL_EVENTS = ",".join(
    (
        "involvedObject.kind=Pod",
        "source=kubelet",
        *(
            f"reason!={reason}"
            for reason in ("Created", "Started", "Killing", "Unhealthy", "FailedMount", "FailedCreatePodSandBox")
        ),
    )
)
"""Field selectors have no OR, but != and AND: without its other frequent reasons, what a kubelet says of pods is about
images. One watch instead of one for each of Pulling, Pulled, Failed and BackOff."""


class Step(Struct, frozen=True):
    """What a watch event means for going on."""

    resource_version: str = ""
    """From where to go on after this event; "" if it does not say."""
    key: ObjectKey | None = None
    """The object that was put or removed."""
    initial_end: bool = False
    error: ApiError | None = None
    """The server ended the watch."""


class Feed(Protocol):
    """One kind on its way from bytes to the store."""

    resource: Resource
    field_selector: str
    optional: bool
    """The server may not have it, now or ever, or not let us read it: another project's, rarely needed, or new."""

    @property
    def resources(self) -> tuple[Resource, ...]:
        """The kind in all versions that are understood."""

    def try_next_version(self) -> bool:
        """Go on to another version of the kind; False once all were tried, and the first is next."""

    def load(self, body: bytes) -> tuple[list[ObjectKey], str]:
        """Put a page of a list; gives the keys in it and the list's resourceVersion."""

    def take(self, line: bytes, *, listed: bool = False) -> Step:
        """Put or remove what a watch event says; `listed`: it is one of a streamed list."""

    def put_raw(self, raw: bytes | msgspec.Raw) -> None:
        """Put a single object, unless the watch has brought this state of it or a later one already."""

    def keep_only(self, keys: Collection[ObjectKey]) -> int:
        """Remove all others: they vanished while nobody watched. Gives their number."""

    def __len__(self) -> int: ...


class KindFeed(Generic[T]):
    """The Feed of a decoder and a sink of the same type."""

    def __init__(
        self, kind: Kind[T], sink: Sink[T], *, field_selector: str = "", foreign_versions: tuple[str, ...] = ()
    ) -> None:
        """`foreign_versions`: of a kind that may be absent or refused, in the order in which they are tried."""
        found = kind.resource
        self.resources = tuple(
            Resource(found.group, version, found.plural, found.kind, found.namespaced) for version in foreign_versions
        ) or (found,)
        self.resource = self.resources[0]
        self.field_selector = field_selector
        self.optional = bool(foreign_versions)
        self._kind = kind
        self._sink = sink

    def try_next_version(self) -> bool:
        """Go on to another version of the kind; False once all were tried, and the first is next."""
        following = self.resources.index(self.resource) + 1
        self.resource = self.resources[following % len(self.resources)]
        return following < len(self.resources)

    def load(self, body: bytes) -> tuple[list[ObjectKey], str]:
        """Put a page of a list.

        Raises:
            msgspec.DecodeError: if the body is no list.
        """
        page = self._kind.page(body)
        put = self._sink.put
        for item in page.items:
            if item.value is not None:
                put(item.key, item.value, listed=True)
        self._sink.progress.reach(page.resource_version)
        return [item.key for item in page.items], page.resource_version

    def take(self, line: bytes, *, listed: bool = False) -> Step:
        """Put or remove what a watch event says; `listed`: it is one of a streamed list.

        Raises:
            msgspec.DecodeError: if the line is no watch event.
        """
        change = self._kind.change(line)
        if change.error is not None:
            return Step(error=decode_status(change.error, 500, request=f"watch of {self.resource.plural}"))
        version = change.object.resource_version
        self._sink.progress.reach(version)
        if change.type == "BOOKMARK":
            return Step(version, initial_end=change.initial_end)
        key, value = change.object.key, change.object.value
        if change.type == "DELETED":
            self._sink.remove(key)
        elif value is not None:
            self._sink.put(key, value, listed=listed)
        return Step(version, key)

    def put_raw(self, raw: bytes | msgspec.Raw) -> None:
        """Put a single object, unless the watch has brought this state of it or a later one already.

        One that cannot be understood is left out.
        """
        decoded = self._kind.one(raw)
        if decoded.value is not None and not self._sink.progress.has_passed(decoded.resource_version):
            self._sink.put(decoded.key, decoded.value)

    def keep_only(self, keys: Collection[ObjectKey]) -> int:
        """Remove all others."""
        vanished = [key for key in self._sink.keys() if key not in keys]  # noqa: SIM118 - a Sink is no mapping
        for key in vanished:
            self._sink.remove(key)
        return len(vanished)

    def __len__(self) -> int:
        return len(self._sink)


def feeds(store: Store, kinds: Kinds | None = None) -> tuple[Feed, ...]:
    """One feed for each kind that planning reads, Events excluded."""
    kinds = kinds or Kinds()
    return (
        KindFeed(kinds.nodes, store.nodes),
        KindFeed(kinds.namespaces, store.namespaces),
        KindFeed(kinds.services, store.services),
        KindFeed(kinds.quotas, store.quotas),
        KindFeed(kinds.limit_ranges, store.limit_ranges),
        KindFeed(kinds.volume_claims, store.volume_claims),
        KindFeed(kinds.volumes, store.volumes),
        *scheduling_feeds(store, kinds),
        KindFeed(kinds.deployments, store.deployments),
        KindFeed(kinds.replica_sets, store.replica_sets),
        KindFeed(kinds.stateful_sets, store.stateful_sets),
        KindFeed(kinds.daemon_sets, store.daemon_sets),
        *batch_feeds(store, kinds),
        KindFeed(kinds.autoscalers, store.autoscalers),
        KindFeed(kinds.policies, store.policies),
        KindFeed(kinds.node_images, store.node_images),
        KindFeed(kinds.image_caches, store.image_caches),
        KindFeed(kinds.pods, store.pods),
        *kruise_feeds(store, kinds),
        KindFeed(kinds.revisions, store.revisions),
        KindFeed(kinds.rollouts, store.rollouts, foreign_versions=("v1alpha1",)),
        KindFeed(kinds.canaries, store.canaries, foreign_versions=("v1beta1",)),
        KindFeed(kinds.image_policies, store.image_policies, foreign_versions=("v1", "v1beta2", "v1beta1")),
    )


def batch_feeds(store: Store, kinds: Kinds) -> tuple[Feed, ...]:
    """Jobs and CronJobs: whoever updates the program before its ClusterRole predicts everything else meanwhile."""
    return (
        KindFeed(kinds.cron_jobs, store.cron_jobs, foreign_versions=("v1",)),
        KindFeed(kinds.jobs, store.jobs, foreign_versions=("v1",)),
    )


def scheduling_feeds(store: Store, kinds: Kinds) -> tuple[Feed, ...]:
    """What the scheduler goes by in rarer cases: predictions are made without it, too, where it may not be read."""
    return (
        KindFeed(kinds.attach_limits, store.attach_limits, foreign_versions=("v1",)),
        KindFeed(kinds.priority_classes, store.priority_classes, foreign_versions=("v1",)),
        KindFeed(kinds.disruption_budgets, store.disruption_budgets, foreign_versions=("v1",)),
    )


def kruise_feeds(store: Store, kinds: Kinds) -> tuple[Feed, ...]:
    """OpenKruise's workloads. Which versions are served depends on its release; all tell what is needed."""
    return (
        KindFeed(kinds.clone_sets, store.clone_sets, foreign_versions=("v1alpha1", "v1beta1")),
        KindFeed(kinds.advanced_stateful_sets, store.advanced_stateful_sets, foreign_versions=("v1beta1", "v1alpha1")),
        KindFeed(kinds.advanced_daemon_sets, store.advanced_daemon_sets, foreign_versions=("v1alpha1", "v1beta1")),
    )


def event_feed(store: Store, kinds: Kinds | None = None) -> Feed:
    """The kubelet's Events about images of pods, for accounting."""
    kinds = kinds or Kinds()
    return KindFeed(kinds.events, store.events, field_selector=KUBELET_PULL_EVENTS)
