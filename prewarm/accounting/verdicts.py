"""The verdict on one container start, from what the kubelet said or, where that was lost, from times."""

from collections.abc import Collection, Sequence

from msgspec import Struct

from prewarm.accounting.ledger import RESOLUTION_SECONDS, Heard
from prewarm.accounting.messages import MessageKind
from prewarm.accounting.pulls import REVALIDATION_RATE, REVALIDATION_SECONDS, NodePulls, OurPull
from prewarm.model.images import canonical
from prewarm.model.outcomes import Outcome, PlanInForce
from prewarm.model.plans import SkipReason

EVENT_GRACE_SECONDS = 15.0
"""After a start, how long its events may still come before times have to do."""
UNKNOWN_GRACE_SECONDS = 120.0
"""After a start, how long any evidence may still come."""
CLEAR_GAP_SECONDS = 3.0
"""A gap before a start that is longer than creating a container takes, whole-second timestamps included."""

_NOT_WITHHELD = frozenset(
    {
        SkipReason.BEYOND_COVERAGE,
        SkipReason.BEYOND_OVERPROVISION,
        SkipReason.UNLIKELY,
        SkipReason.TOO_LATE,
        SkipReason.UNSETTLED,
        SkipReason.STEERED_ELSEWHERE,
    }
)
"""The node was a candidate that was left out as improbable, or became one when its pods existed already (the first
burst): no prediction came in time, and no budget or node state withheld a pull."""

_UNKNOWN_LANDING = frozenset({SkipReason.UNPREDICTABLE, SkipReason.BEYOND_WASTE})
"""The plan had said that it does not know whether pods come to the node."""


class OpenStart(Struct, frozen=True):
    """A container start that waits for its verdict; `image` is canonical, times are Unix seconds."""

    container: str
    image: str
    created_at: float
    started_at: float
    could_begin_at: float | None
    """When the kubelet could first have turned to this image; None if the status does not tell."""
    gap_counts: bool
    """Whether the time from then to the start holds the pull (kubelet >= 1.36, kubernetes#134660)."""


class Verdict(Struct, frozen=True):
    """What became of a start, and the pull of ours that it used."""

    outcome: Outcome
    pull: OurPull | None = None
    pull_seconds: float | None = None
    """What this start waited for its image."""
    size_bytes: int = 0


def judge(
    start: OpenStart,
    words: Sequence[Heard],
    node: NodePulls,
    plans: Collection[PlanInForce],
    *,
    node_name: str,
    credited: float | None,
    expected_seconds: float | None,
    now: float,
    over: bool = False,
) -> Verdict | None:
    """Decide one start; None while evidence may still come.

    Args:
        start: the start in question.
        words: what the kubelet said about this image of this pod, in any order.
        node: our pulls on the node.
        plans: what was predicted for the workload, withdrawn plans included.
        node_name: where the pod runs.
        credited: end of the pull of ours of this image whose first use was counted already.
        expected_seconds: what pulling this image takes there, by experience.
        now: Unix seconds.
        over: whether the pod ended or is gone, and nothing more is waited for.
    """
    asked = _asked_at(start, words)
    patient = not over and now < start.started_at + EVENT_GRACE_SECONDS
    pulled = max((word for word in words if word.kind is MessageKind.PULLED), default=None, key=lambda word: word.at)
    if pulled is not None:
        if patient and pulled.total_seconds <= REVALIDATION_SECONDS and _end_unknown(node, start.image, asked):
            return None
        if _revalidated(pulled, asked, node, start.image):
            return _hit(start, asked, node, credited)
        return _waited(start, asked, node, plans, node_name, pulled.total_seconds, pulled.size_bytes)
    if any(word.kind is MessageKind.PRESENT for word in words):
        joined = _under_way(node, start.image, asked) if _pulling_heard(words) else None
        if joined is not None:
            return Verdict(Outcome.LATE, joined, max(0.0, start.started_at - asked))
        found = _hit(start, asked, node, credited)
        anyway = found.outcome is Outcome.HIT_PRESENT
        return None if patient and anyway and _end_unknown(node, start.image, asked) else found
    if now < start.started_at + EVENT_GRACE_SECONDS:
        return None
    verdict = _by_times(start, node, plans, node_name, credited, expected_seconds)
    if verdict is None and now >= start.started_at + UNKNOWN_GRACE_SECONDS:
        return Verdict(Outcome.UNKNOWN)
    return verdict


def _pulling_heard(words: Sequence[Heard]) -> bool:
    return any(word.kind in {MessageKind.PULLING, MessageKind.FAILED} for word in words)


def _asked_at(start: OpenStart, words: Sequence[Heard]) -> float:
    """When the kubelet first wanted the image; events say it best."""
    asked = [word.at for word in words if word.kind in {MessageKind.PULLING, MessageKind.FAILED}]
    asked += [word.at - word.total_seconds for word in words if word.kind is MessageKind.PULLED]
    asked += [word.at for word in words if word.kind is MessageKind.PRESENT]
    if asked:
        return min(asked)
    return start.could_begin_at if start.could_begin_at is not None else start.created_at


def _was_there(node: NodePulls, image: str, at: float) -> bool:
    return image in node.listed or any(p.ended is not None and p.ended <= at + 1.0 for p in node.of(image))


def _revalidated(pulled: Heard, asked: float, node: NodePulls, image: str) -> bool:
    """Whether "Successfully pulled" means that only credentials or a tag were asked for.

    A pod that joins a pull in progress reports a short call too, but waited: its total shows it. One that waited no
    longer than a revalidation may take asked when the image came, in the same second by the events' whole ones.
    """
    if pulled.pull_seconds > REVALIDATION_SECONDS:
        return False
    joined = _under_way(node, image, asked)
    if joined is not None:
        return joined.ended is not None and pulled.total_seconds <= REVALIDATION_SECONDS
    if any(pull.ended is not None and pull.ended <= asked + 1.0 for pull in node.of(image)):
        return True
    if pulled.total_seconds - pulled.pull_seconds > REVALIDATION_SECONDS:
        return False
    # The node may list it because of this very pull.
    rate = REVALIDATION_RATE / 10 if image in node.listed else REVALIDATION_RATE
    return pulled.size_bytes > pulled.pull_seconds * rate


def _end_unknown(node: NodePulls, image: str, asked: float) -> bool:
    """Whether a pull of ours may have brought the image although nobody has said so yet.

    The kubelet tells of both pods, but Events and pods come by watches of their own: what it said first may come last.
    Without its words a pull ends with its container's start, which a busy kubelet comes to seconds after the pull.
    """
    return any(
        not (pull.failed or pull.present_before)
        and (pull.began is None or pull.began <= asked + 1.0)
        and (pull.ended is None or pull.ended > asked + 1.0)
        for pull in node.of(image)
    )


def _under_way(node: NodePulls, image: str, at: float) -> OurPull | None:
    return next((pull for pull in node.of(image) if pull.under_way(at, slack=1.0)), None)


def _hit(start: OpenStart, asked: float, node: NodePulls, credited: float | None) -> Verdict:
    """The image was there: thanks to us if a pull of ours had brought it and nothing used it since."""
    for pull in reversed(node.of(start.image)):
        if pull.ended is None or pull.present_before or pull.ended > max(asked, start.started_at) + 1.0:
            continue
        if credited is not None and pull.ended <= credited + RESOLUTION_SECONDS:
            break
        return Verdict(Outcome.HIT_PREWARMED, pull)
    return Verdict(Outcome.HIT_PRESENT)


def _waited(
    start: OpenStart,
    asked: float,
    node: NodePulls,
    plans: Collection[PlanInForce],
    node_name: str,
    seconds: float,
    size_bytes: int,
) -> Verdict:
    joined = _under_way(node, start.image, asked)
    if joined is not None:
        return Verdict(Outcome.LATE, joined, seconds, size_bytes)
    return Verdict(attribute(start, node, plans, node_name), None, seconds, size_bytes)


def _by_times(
    start: OpenStart,
    node: NodePulls,
    plans: Collection[PlanInForce],
    node_name: str,
    credited: float | None,
    expected_seconds: float | None,
) -> Verdict | None:
    """The verdict without events: presence before the start, against the gap that a pull would have left."""
    begin = start.could_begin_at
    if begin is None:
        return None
    gap = max(0.0, start.started_at - begin)
    if gap <= CLEAR_GAP_SECONDS:
        if _was_there(node, start.image, begin) or (
            start.gap_counts and (expected_seconds or 0.0) > 2 * CLEAR_GAP_SECONDS
        ):
            return _hit(start, begin, node, credited)
        return None
    if start.gap_counts and expected_seconds is not None and gap >= max(CLEAR_GAP_SECONDS, expected_seconds / 2):
        return _waited(start, begin, node, plans, node_name, gap, 0)
    joined = _under_way(node, start.image, begin)
    return Verdict(Outcome.LATE, joined, gap) if joined is not None and start.gap_counts else None


def attribute(start: OpenStart, node: NodePulls, plans: Collection[PlanInForce], node_name: str) -> Outcome:
    """Why the image was missing, by the plans that were in force when the pod was created."""
    in_force = [
        plan
        for plan in plans
        if plan.since <= start.created_at
        and (plan.until is None or plan.until >= start.created_at)
        and any(canonical(image) == start.image for image in plan.images)
    ]
    if start.image in node.failed:
        return Outcome.MISS_FAILED
    if any(node_name in plan.nodes for plan in in_force):
        return Outcome.MISS_SKIPPED
    reasons = {reason for plan in in_force for name, reason in plan.skipped if name == node_name}
    if reasons & _UNKNOWN_LANDING or any(plan.unpredictable for plan in in_force):
        return Outcome.MISS_UNPREDICTABLE
    if reasons - _NOT_WITHHELD:
        return Outcome.MISS_SKIPPED
    return Outcome.MISS_UNPREDICTED
