"""What accounting remembers between two looks at the cluster, and how that survives a restart."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from prewarm.accounting.messages import MessageKind
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ObjectKey
from prewarm.model.workloads import WorkloadKey

StartKey = tuple[str, str]
"""Container name and image as the pod spec writes it."""

MAX_HEARD_PODS = 20_000
"""Pods whose events are kept until their starts are judged."""
MAX_OPEN_PODS = 20_000
MAX_PULLS = 50_000
"""Pulls of ours that wait for their verdict."""
LATE_RECORD_SECONDS = 60.0
"""A node's record may show a pull this long after its end; what is older and stands in no saved list was judged."""
DEPARTED_SECONDS = 60.0
"""How long a pod of ours counts as evidence after it is gone."""
RESOLUTION_SECONDS = 2.0
"""API timestamps have whole seconds, and clocks differ: nothing closer together is told apart."""


class Heard(Struct, frozen=True, order=True):
    """What a kubelet's event said about one image of one pod; `at` in Unix seconds."""

    at: float
    kind: MessageKind
    image: str
    """Canonical spelling."""
    container: str = ""
    """"" if the event is about the pod (image volumes)."""
    pull_seconds: float = 0.0
    total_seconds: float = 0.0
    size_bytes: int = 0


class PullKey(Struct, frozen=True, order=True, gc=False):
    """One pull of ours; `since` is when the image was there, in Unix seconds."""

    node: str
    image: str
    """Canonical spelling."""
    since: float


class OutstandingPull(Struct, frozen=True):
    """A pull of ours whose bytes were neither used nor wasted yet."""

    key: PullKey
    node_uid: str
    cache: str
    size_bytes: int = 0
    counted: bool = False
    """Whether its bytes were reported as pulled."""


class OpenPod(Struct, frozen=True):
    """A pod, as last seen, with starts that are not judged."""

    workload: WorkloadKey
    pod: Pod
    keys: frozenset[StartKey]
    """Every start that it owes, settled ones included."""


class Resumed(Struct, frozen=True):
    """What the ledger of an earlier process says about starts that this one finds in the cluster."""

    saved_at: float
    open: Mapping[str, tuple[StartKey, ...]] = {}
    """Pod uid to the starts already settled, of pods that had unsettled ones."""
    recent: Mapping[str, tuple[StartKey, ...]] = {}
    """Pod uid to starts settled at most RESOLUTION_SECONDS before saving: times alone cannot tell those."""

    def settled(self, pod_uid: str, key: StartKey, started_at: float) -> bool:
        """Whether that start was judged before the restart."""
        if key in self.recent.get(pod_uid, ()):
            return True
        if pod_uid in self.open:
            return key in self.open[pod_uid]
        return started_at < self.saved_at - RESOLUTION_SECONDS


class Ledger(Struct, frozen=True):
    """Everything judged and everything still open; an empty one judges nothing that started before its first use."""

    since: float | None = None
    previous: float = 0.0
    """When the last look was, in Unix seconds."""
    covered_since: Mapping[WorkloadKey, float] = {}
    settled: Mapping[str, frozenset[StartKey]] = {}
    """By pod uid; pods that are gone are dropped."""
    settled_at: Mapping[str, float] = {}
    """Pod uid to the latest start that was settled."""
    open: Mapping[str, OpenPod] = {}
    """By pod uid."""
    noticed: Mapping[tuple[str, StartKey], float] = {}
    """When an image that replaced another one in place was seen first."""
    heard: Mapping[str, tuple[Heard, ...]] = {}
    """By pod uid."""
    said: Mapping[tuple[str, str], Heard] = {}
    """Node and image to the kubelet's last word on a pull of ours: the puller pod may be gone before it is needed."""
    pullers: Mapping[ObjectKey, Pod] = {}
    """Our pods at the last look."""
    departed: Mapping[str, Pod] = {}
    """By uid, those that are gone, for DEPARTED_SECONDS: the watch that brings the node's record may lag behind that of
    pods. `deleted_at` is when they were missed."""
    credited: Mapping[tuple[str, str], float] = {}
    """Node and image to the end of the pull of ours whose first use was counted."""
    pulls: Mapping[PullKey, OutstandingPull] = {}
    closed_pulls: Mapping[PullKey, bool] = {}
    """Verdicts already given, kept while the image stands in the node's record."""
    resumed: Resumed | None = None
    """What an earlier process saved; None if this ledger began anew."""
    swept_at: float = 0.0
    """When all open pods were last looked at, for those whose time has come."""
    pruned_at: float = 0.0

    @property
    def pulls_since(self) -> float:
        """Pulls that ended before are not taken up: an earlier process did, or they are older than this accounting."""
        began = self.resumed.saved_at if self.resumed is not None else self.since
        return (began or 0.0) - LATE_RECORD_SECONDS


class _SavedPull(Struct, frozen=True, array_like=True):
    node: str
    image: str
    since: float
    node_uid: str
    cache: str
    size_bytes: int
    counted: bool


class _Saved(Struct, frozen=True, omit_defaults=True):
    version: int
    since: float
    saved_at: float
    covered: tuple[tuple[WorkloadKey, float], ...] = ()
    open: Mapping[str, tuple[StartKey, ...]] = {}
    recent: Mapping[str, tuple[StartKey, ...]] = {}
    credited: tuple[tuple[str, str, float], ...] = ()
    pulls: tuple[_SavedPull, ...] = ()
    closed: tuple[tuple[str, str, float], ...] = ()


_VERSION = 1
MAX_BYTES = 300_000
"""The ConfigMap of 1 MiB holds the history as well."""


def encode_ledger(ledger: Ledger, saved_at: float) -> bytes:
    """The ledger as it has to be at hand after a restart, at most MAX_BYTES; JSON, so that people can read it.

    Settled starts and closed pulls need no record of their own, but the latest: whatever started or ended before
    `saved_at` and is not listed as open was judged. Where the lists do not fit, the oldest entries go first (what was
    open among them then stays uncounted).
    """
    recent = _still_recent(ledger.resumed, saved_at) | {
        uid: tuple(sorted(ledger.settled[uid]))
        for uid, at in ledger.settled_at.items()
        if at >= saved_at - RESOLUTION_SECONDS and uid in ledger.settled
    }
    open_pods = {
        uid: tuple(sorted(ledger.settled.get(uid, frozenset())))
        for uid, entry in sorted(ledger.open.items(), key=lambda item: (-item[1].pod.created_at, item[0]))
    }
    closed = sorted(
        (key for key in ledger.closed_pulls if key.since >= saved_at - LATE_RECORD_SECONDS),
        key=lambda key: (-key.since, key),
    )
    lists = (ledger.covered_since, ledger.pulls, closed, ledger.credited)
    limit = max(1, len(open_pods), len(recent), *(len(found) for found in lists))
    while True:
        encoded = _encode(ledger, saved_at, open_pods, recent, closed, limit)
        if len(encoded) <= MAX_BYTES or limit <= 1:
            return encoded
        limit //= 2


def _still_recent(resumed: Resumed | None, saved_at: float) -> dict[str, tuple[StartKey, ...]]:
    """What an earlier process settled just before it was saved, if this save comes hardly later: restarts in a row."""
    if resumed is None or resumed.saved_at < saved_at - RESOLUTION_SECONDS:
        return {}
    return dict(resumed.recent)


def _encode(
    ledger: Ledger,
    saved_at: float,
    open_pods: Mapping[str, tuple[StartKey, ...]],
    recent: Mapping[str, tuple[StartKey, ...]],
    closed: Sequence[PullKey],
    limit: int,
) -> bytes:
    pulls = sorted(ledger.pulls.values(), key=lambda pull: (-pull.key.since, pull.key))[:limit]
    credited = sorted(ledger.credited.items(), key=lambda item: (-item[1], item[0]))[:limit]
    saved = _Saved(
        version=_VERSION,
        since=ledger.since if ledger.since is not None else saved_at,
        saved_at=saved_at,
        covered=tuple(sorted(ledger.covered_since.items(), key=lambda item: (-item[1], item[0]))[:limit]),
        open=dict(list(open_pods.items())[:limit]),
        recent=dict(list(recent.items())[:limit]),
        credited=tuple((node, image, at) for (node, image), at in credited),
        pulls=tuple(
            _SavedPull(p.key.node, p.key.image, p.key.since, p.node_uid, p.cache, p.size_bytes, p.counted)
            for p in pulls
        ),
        closed=tuple((key.node, key.image, key.since) for key in closed[:limit]),
    )
    return msgspec.json.encode(saved)


def decode_ledger(data: bytes) -> tuple[Ledger, str]:
    """Read a saved ledger; an unreadable one gives an empty ledger and the reason in one line."""
    try:
        saved = msgspec.json.decode(data, type=_Saved)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Ledger(), f"the saved ledger cannot be read, accounting starts anew: {error}"
    if saved.version != _VERSION:
        return Ledger(), f"the saved ledger has version {saved.version}, not {_VERSION}; accounting starts anew"
    pulls = [
        OutstandingPull(PullKey(p.node, p.image, p.since), p.node_uid, p.cache, p.size_bytes, p.counted)
        for p in saved.pulls
    ]
    ledger = Ledger(
        since=saved.since,
        previous=saved.saved_at,
        covered_since=dict(saved.covered),
        credited={(node, image): at for node, image, at in saved.credited},
        pulls={pull.key: pull for pull in pulls},
        closed_pulls=dict.fromkeys((PullKey(*key) for key in saved.closed), True),
        resumed=Resumed(saved.saved_at, saved.open, saved.recent),
    )
    return ledger, ""
