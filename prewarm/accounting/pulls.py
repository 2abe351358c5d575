"""Pulls of ours on one node: when they began and ended, and whether they brought anything."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from prewarm.accounting.ledger import Heard, Ledger
from prewarm.accounting.messages import MessageKind
from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, Node, PresentImage
from prewarm.model.pods import ContainerPhase, ContainerStatus, Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence.evidence import proves_presence, pulled_images, record_holds

SAME_SECONDS = 5.0
"""Reports of the end of one pull that are closer together than this are about the same pull."""
REVALIDATION_SECONDS = 0.5
"""A pull call this short of an image that was there asked the registry about credentials or a tag, no more."""
REVALIDATION_RATE = 1e9
"""Bytes a second: a call that "pulled" faster transferred nothing."""


class OurPull(Struct, frozen=True):
    """One pull of ours of one image on one node; times are Unix seconds."""

    began: float | None
    """None where only the node's record is left."""
    ended: float | None
    """When the image was there; None while it is under way, and for ever if it failed."""
    seconds: float | None = None
    """What the pull itself took, by the kubelet's words where they were heard."""
    failed: bool = False
    present_before: bool = False
    """The kubelet said that the image was there already, or pulled in no time after it had waited behind the pull of
    a pod that brought it: ours brought nothing."""

    def under_way(self, at: float, slack: float) -> bool:
        """Whether it had begun and had not ended at that time, with `slack` for whole-second timestamps."""
        if self.began is None or self.began > at + slack or self.present_before:
            return False
        return self.ended > at if self.ended is not None else not self.failed


class NodePulls(Struct, frozen=True):
    """What accounting knows of the images of one node."""

    pulls: Mapping[str, tuple[OurPull, ...]] = {}
    """By canonical image."""
    listed: frozenset[str] = frozenset()
    """On the node's own list, or recorded as seen there without a pull of ours."""
    failed: frozenset[str] = frozenset()
    """Our last attempts at these failed."""

    def of(self, image: str) -> tuple[OurPull, ...]:
        """Our pulls of one image (canonical), in the order in which they ended."""
        return self.pulls.get(image, ())


def pullers_by_node(snapshot: ClusterSnapshot, ledger: Ledger) -> dict[str, list[Pod]]:
    """Our puller pods by node, finished ones included, and for a while those that are gone since."""
    index: dict[str, list[Pod]] = {}
    for pod in (*snapshot.puller_pods.values(), *ledger.departed.values()):
        index.setdefault(pod.node_name, []).append(pod)
    return index


def pulls_on(snapshot: ClusterSnapshot, ledger: Ledger, node: Node, pullers: list[Pod]) -> NodePulls:
    """Everything known of one node: puller pods, what their kubelet said of them, and the node's record."""
    pulls: dict[str, list[OurPull]] = {}
    failed: set[str] = set()
    listed = {canonical(name) for image in node.images for name in image.names}
    for pod in pullers:
        if pod.uid in ledger.departed and pod.created_at < node.created_at:
            # It went with a node of this name before.
            continue
        for image, pull in _of_puller(pod, ledger.heard.get(pod.uid, ())):
            pulls.setdefault(image, []).append(pull)
            if pull.failed and pod.uid not in ledger.departed:
                failed.add(image)
    record = snapshot.node_images.get(node.name)
    if record is not None and record_holds(record, node):
        for entry in record.images:
            if entry.evidence is Evidence.OUR_PULL:
                known = pulls.setdefault(entry.image, [])
                if not any(pull.ended is not None and abs(pull.ended - entry.since) < SAME_SECONDS for pull in known):
                    known.append(_of_record(entry, ledger.said.get((node.name, entry.image))))
            else:
                listed.add(entry.image)
        failed.update(canonical(failure.image) for failure in record.failures)
    ordered = {
        image: tuple(sorted(found, key=lambda pull: (pull.ended is None, pull.ended or 0.0, pull.began or 0.0)))
        for image, found in pulls.items()
    }
    return NodePulls(ordered, frozenset(listed), frozenset(failed))


def _of_record(entry: PresentImage, word: Heard | None) -> OurPull:
    if word is None or abs(word.at - entry.since) >= SAME_SECONDS:
        return OurPull(None, entry.since, entry.pull_seconds)
    if word.kind is MessageKind.PRESENT or _came_after_another(word):
        return OurPull(None, entry.since, present_before=True)
    # The record goes by the container's start, which a busy kubelet may come to seconds after the pull.
    return OurPull(None, min(entry.since, word.at), word.pull_seconds)


def _of_puller(pod: Pod, heard: tuple[Heard, ...]) -> Iterator[tuple[str, OurPull]]:
    statuses = {status.name: status for status in pod.containers}
    helpers_done = max((status.finished_at or 0.0 for status in pod.containers if status.init), default=0.0)
    first = helpers_done or pod.sandbox_ready_at or pod.scheduled_at or pod.created_at
    for name, spelling in pulled_images(pod):
        image = canonical(spelling)
        words = [word for word in heard if word.image == image and word.container in {"", name}]
        status = statuses.get(name)
        pull = _judge_puller(first, status, words, gone=pod.finished or pod.deleted_at is not None)
        first = pull.ended or first
        yield image, pull


def _judge_puller(first: float, status: ContainerStatus | None, words: list[Heard], *, gone: bool) -> OurPull:
    began = min((word.at for word in words if word.kind is MessageKind.PULLING), default=first)
    pulled = next((word for word in words if word.kind is MessageKind.PULLED), None)
    present = any(word.kind is MessageKind.PRESENT for word in words)
    if pulled is not None:
        found = _came_after_another(pulled)
        return OurPull(min(began, pulled.at), pulled.at, None if found else pulled.pull_seconds, present_before=found)
    if status is not None and proves_presence(status):
        ended = status.started_at or status.finished_at or first
        return OurPull(min(began, ended), ended, None if present else max(0.0, ended - began), present_before=present)
    if present:
        return OurPull(began, began, present_before=True)
    waiting = status is not None and status.phase is ContainerPhase.WAITING
    failing = any(word.kind is MessageKind.FAILED for word in words) or (
        waiting and status is not None and status.reason in {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"}
    )
    return OurPull(began, None, failed=failing or gone)


def _came_after_another(pulled: Heard) -> bool:
    """Whether a pull waited in the kubelet's queue, and then transferred nothing."""
    waited = pulled.total_seconds - pulled.pull_seconds > REVALIDATION_SECONDS
    quick = pulled.pull_seconds <= REVALIDATION_SECONDS
    return waited and quick and pulled.size_bytes > pulled.pull_seconds * REVALIDATION_RATE
