"""A start on a node that we warmed is a prewarmed hit, in whatever order the API brings what shows it."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from prewarm.accounting import Ledger, account
from prewarm.history import History
from prewarm.model.outcomes import ContainerStart, Outcome
from prewarm.model.workloads import KubeletEvent
from tests.support.starts import Scene, present, pulled, pulling

_CREATED, _THERE = 1005.0, 1020.0
"""When our puller pod began, and when the image was on the node."""
_STEP_SECONDS = 0.5
_STREAMS = 5
"""Watches of pods (ours, the workload's with its Events aside), of Events about ours, of Events about others, and of
records."""


class _Watches:
    """A puller pod and the first pod on its node, as watches bring them: each in its own order, all lagging by its own.

    The record is written by whoever has seen the puller's status, and the pod deleted by whoever has seen the record.
    """

    def __init__(self, asked_after: float, container_after: float) -> None:
        scene = self.scene = Scene()
        puller = scene.puller("node-a", created=_CREATED)
        created = _THERE + asked_after
        pod = scene.pod("web-1", "node-a", created=created)
        done = _THERE + container_after
        self.events: list[KubeletEvent] = []
        self._waiting: list[list[Callable[[], object]]] = [
            [
                lambda: scene.puller("node-a", created=_CREATED, done=done),
                lambda: scene.pods.pop(puller.key),
            ],
            [lambda: scene.pod("web-1", "node-a", created=created, started=created + 0.5)],
            [
                lambda: self.events.append(pulling(puller, at=_CREATED + 1, container="pull-0")),
                lambda: self.events.append(pulled(puller, "14s", "14s", at=_THERE, container="pull-0")),
            ],
            [lambda: self.events.append(present(pod, at=created + 0.25))],
            [lambda: scene.record("node-a", since=done)],
        ]

    def bring(self, stream: int) -> bool:
        """The next news of a watch, if it has any."""
        if not self._waiting[stream]:
            return False
        self._waiting[stream].pop(0)()
        return True


@given(
    order=st.lists(st.integers(0, _STREAMS - 1), max_size=30),
    asked_after=st.sampled_from([0.0, 0.25, 1.0, 5.0]),
    container_after=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_a_warmed_nodes_first_start_is_a_prewarmed_hit_in_any_order_of_news(
    order: list[int], asked_after: float, container_after: float
) -> None:
    watches = _Watches(asked_after, container_after)
    ledger, _ = account(Ledger(), Scene().snapshot(1000.0), (), History())
    now = _THERE + asked_after + 1.0
    judged: list[ContainerStart] = []
    for stream in (*order, *(number for number in range(_STREAMS) for _ in range(3)), 0):
        if watches.bring(stream):
            now += _STEP_SECONDS
        ledger, starts = account(ledger, watches.scene.snapshot(now), watches.events, History())
        judged.extend(starts)
    ledger, starts = account(ledger, watches.scene.snapshot(now + 5.0), (), History())
    judged.extend(starts)
    assert [start.outcome for start in judged] == [Outcome.HIT_PREWARMED]
