"""What is to be remembered of each node's images: the NodeImage records, written on change only."""

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, Node, NodeImages, PresentImage, pull_identity
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence.evidence import (
    Sighting,
    images_started,
    listed_names,
    our_pulls,
    pulls_shown,
    record_holds,
    vanished,
)
from prewarm.presence.names import by_digest, digest_among, digest_of, keys
from prewarm.presence.wanted import Wanted
from prewarm.presence.warmth import Warmth, warmth

MAX_RECORDED_IMAGES = 250
"""Images on one record; what we pulled and what is wanted goes first."""


_Entries = dict[tuple[str, str], PresentImage]
"""By image and pull identity: what came under two credentials is known under both."""


def observe(
    snapshot: ClusterSnapshot,
    *,
    nodes: Collection[str] | None = None,
    known: Warmth | None = None,
    asked: Wanted | None = None,
) -> tuple[NodeImages, ...]:
    """Records that differ from the snapshot's, in order of node name: what was pulled, seen, first used, or went.

    Our own pulls are always recorded; what others put on a node only where an ImageCache asks for it.

    Args:
        snapshot: the cluster.
        nodes: look at these nodes only; None = all.
        known: warmth of the same snapshot, if it is at hand already.
        asked: what its ImageCaches ask for, if it is at hand already.
    """
    known = known if known is not None else warmth(snapshot)
    asked = asked if asked is not None else Wanted(snapshot.image_caches)
    changed = []
    for node_name in sorted(snapshot.nodes if nodes is None else nodes):
        node = snapshot.nodes.get(node_name)
        if node is None:
            continue
        record = snapshot.node_images.get(node_name)
        pods = snapshot.pods_by_node.get(node_name, {})
        images = asked.on(node, snapshot)
        fresh = observe_node(node, record, pods.values(), known.pullers(node_name), images, snapshot.taken_at)
        if fresh is not None:
            changed.append(fresh)
    return tuple(changed)


def forgotten(snapshot: ClusterSnapshot) -> tuple[str, ...]:
    """Names of records whose node is gone, in order."""
    return tuple(sorted(name for name in snapshot.node_images if name not in snapshot.nodes))


def observe_node(
    node: Node,
    record: NodeImages | None,
    pods: Collection[Pod],
    pullers: Collection[Pod],
    asked: frozenset[str],
    now: float,
) -> NodeImages | None:
    """The record of one node as it should be; None if it is right already (or there is nothing to say)."""
    holds = record is not None and record_holds(record, node)
    before = record if holds else None
    listed = listed_names(node)
    known: _Entries = {
        (entry.image, entry.pull_identity): entry for entry in (before.images if before is not None else ())
    }
    entries = {key: entry for key, entry in known.items() if not vanished(entry, node, listed)}
    _add_our_pulls(entries, pulls_shown(pullers, record, node))
    if len(entries) < len(known):
        # While a finished pod says that it pulled what vanished since, only the record knows better.
        said = {(canonical(image), pull.identity or "") for pod in pullers for image, pull in our_pulls(pod)}
        entries |= {key: entry for key, entry in known.items() if key not in entries and key in said}
    _add_running(entries, pods, pullers, asked)
    _add_listed(entries, node, listed, asked, now)
    images = _bounded(entries.values(), asked)
    if before is not None and set(images) == set(before.images):
        return None
    if record is None and not images:
        return None
    failures = before.failures if before is not None else ()
    version = record.resource_version if record is not None else ""
    return NodeImages(node.name, node.uid, node.boot_id, images, failures, version)


def _add_our_pulls(entries: _Entries, pulls: Iterable[tuple[str, Sighting]]) -> None:
    for image, pull in pulls:
        name = canonical(image)
        key = (name, pull.identity or "")
        old = entries.get(key)
        if old is not None and old.evidence is Evidence.OUR_PULL and old.since >= pull.since:
            continue
        same = old is not None and old.digest == pull.digest
        entries[key] = PresentImage(
            image=name,
            evidence=Evidence.OUR_PULL,
            since=pull.since,
            digest=pull.digest,
            size_bytes=old.size_bytes if old is not None and same else 0,
            cache=pull.cache,
            pull_seconds=pull.pull_seconds,
            pull_identity=pull.identity or "",
            # A pod of a workload ran it before: our pod brought nothing that would still have to pay off.
            used_at=old.since if old is not None and same and old.evidence is Evidence.RUNNING_POD else None,
        )


def _add_running(entries: _Entries, pods: Collection[Pod], pullers: Collection[Pod], asked: frozenset[str]) -> None:
    """Note the first use of what we pulled, and take over what is asked for and runs."""
    unused = {key for key, entry in entries.items() if entry.evidence is Evidence.OUR_PULL and entry.used_at is None}
    known = {image for image, _ in entries}
    if not unused and known >= asked:
        return
    ours = {pod.key for pod in pullers}
    for pod in sorted(pods, key=lambda pod: (pod.created_at, pod.key)):
        if pod.key in ours:
            continue
        for image, status in images_started(pod):
            name = canonical(image)
            started = status.started_at or pod.created_at
            for key in [key for key in unused if key[0] == name and started >= entries[key].since]:
                entries[key] = replace(entries[key], used_at=started)
                unused.discard(key)
            if name in asked and name not in known:
                known.add(name)
                identity = pull_identity(pod.namespace, pod.shape.service_account, pod.shape.pull_secrets)
                entries[name, identity] = PresentImage(
                    name, Evidence.RUNNING_POD, started, digest_of(status.image_id), pull_identity=identity
                )


def _add_listed(entries: _Entries, node: Node, listed: Mapping[str, int], asked: frozenset[str], now: float) -> None:
    """Take over what is asked for and listed, and learn sizes and digests from the node's list."""
    known = {image for image, _ in entries}
    for image in sorted(asked - known):
        if any(key in listed for key in keys(image)):
            # Whole seconds, as the API keeps them: what is read back has to equal what was written.
            entries[image, ""] = PresentImage(image, Evidence.NODE_STATUS, since=float(int(now)))
    if not entries:
        return
    digests = {canonical(name): digest_among(image.names) for image in node.images for name in image.names}
    for key, entry in list(entries.items()):
        names = (*keys(entry.image), by_digest(entry.image, entry.digest))
        name = next((name for name in names if name in listed), None)
        if name is None:
            continue
        digest = entry.digest or digests[name]
        if (entry.size_bytes, entry.digest) != (listed[name], digest):
            entries[key] = replace(entry, size_bytes=listed[name], digest=digest)


def _bounded(entries: Collection[PresentImage], asked: frozenset[str]) -> tuple[PresentImage, ...]:
    """The most useful entries, in order of name: our pulls first, asked for before others, newest before oldest."""
    if len(entries) > MAX_RECORDED_IMAGES:
        rank = sorted(
            entries,
            key=lambda entry: (
                entry.evidence is not Evidence.OUR_PULL,
                entry.image not in asked,
                -entry.since,
                entry.image,
            ),
        )
        entries = rank[:MAX_RECORDED_IMAGES]
    return tuple(sorted(entries, key=lambda entry: (entry.image, entry.pull_identity)))
