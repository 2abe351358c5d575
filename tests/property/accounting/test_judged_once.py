"""Whatever the order of events, and wherever the process restarts, each start is judged once and alike."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct

from prewarm.accounting import Ledger, account, decode_ledger, encode_ledger
from prewarm.history import History
from prewarm.model.outcomes import ContainerStart, Outcome
from prewarm.model.workloads import KubeletEvent
from tests.support.starts import Scene, plan, present, pulled, pulling

BEGIN, END = 1000.0, 2000.0
NODES = ("node-a", "node-b", "node-c")
HISTORY = History(plans_in_force=(plan("node-a", "node-b", since=BEGIN),))


class Life(Struct, frozen=True):
    """One pod's fate."""

    node: str
    created: int
    wait: int
    """Seconds until it starts; None of its events before."""
    told: str
    """What its kubelet says: present, pulled, or nothing."""


lives = st.lists(
    st.builds(
        Life,
        node=st.sampled_from(NODES),
        created=st.integers(1010, 1200),
        wait=st.integers(1, 60),
        told=st.sampled_from(["present", "pulled", ""]),
    ),
    min_size=1,
    max_size=12,
)


def scene_at(fates: Sequence[Life], at: float) -> Scene:
    """The pods that exist at a time, started if their wait is over."""
    scene = Scene(node_names=NODES)
    scene.record("node-a", since=1005.0)
    for number, life in enumerate(fates):
        if life.created <= at:
            started = life.created + life.wait
            scene.pod(f"web-{number}", life.node, created=life.created, started=started if started <= at else None)
    return scene


def all_events(fates: Sequence[Life]) -> list[KubeletEvent]:
    """Everything that the kubelets say about these pods."""
    pods = scene_at(fates, END).pods
    events: list[KubeletEvent] = []
    for number, life in enumerate(fates):
        pod, started = pods["default", f"web-{number}"], float(life.created + life.wait)
        if life.told == "present":
            events.append(present(pod, at=started))
        elif life.told == "pulled":
            events += [pulling(pod, at=life.created), pulled(pod, f"{life.wait}s", f"{life.wait}s", at=started)]
    return events


def totals(starts: Sequence[ContainerStart]) -> Counter[Outcome]:
    """How many starts of each outcome; fails if one was judged twice."""
    keys = Counter((start.pod_uid, start.container, start.image) for start in starts)
    assert all(count == 1 for count in keys.values())
    return Counter(start.outcome for start in starts)


def in_one_look(fates: Sequence[Life], events: Sequence[KubeletEvent]) -> Counter[Outcome]:
    ledger, _ = account(Ledger(), Scene(node_names=NODES).snapshot(BEGIN), (), HISTORY)
    return totals(account(ledger, scene_at(fates, END).snapshot(END), events, HISTORY)[1])


@given(fates=lives, data=st.data())
def test_the_order_of_events_does_not_matter(fates: list[Life], data: st.DataObject) -> None:
    events = all_events(fates)
    shuffled = data.draw(st.permutations(events)) if events else []
    expected = in_one_look(fates, events)
    assert in_one_look(fates, [*shuffled, *shuffled]) == expected
    assert expected.total() == len(fates)


def in_many_looks(fates: Sequence[Life], looks: Sequence[int], restarts: frozenset[int]) -> Counter[Outcome]:
    """Judge in several looks; before those in `restarts` the process ends and its successor hears old events again."""
    ledger, _ = account(Ledger(), Scene(node_names=NODES).snapshot(BEGIN), (), HISTORY)
    events, starts, told = all_events(fates), list[ContainerStart](), BEGIN
    for number, look in enumerate([*looks, int(END)]):
        if number in restarts:
            ledger, problem = decode_ledger(encode_ledger(ledger, told))
            assert problem == ""
        since = BEGIN if number in restarts else told
        fresh = [event for event in events if since < event.first_seen <= look]
        ledger, judged = account(ledger, scene_at(fates, look).snapshot(float(look)), fresh, HISTORY)
        starts += judged
        told = float(look)
    return totals(starts)


@given(
    fates=lives,
    looks=st.lists(st.integers(1010, 1300), min_size=1, max_size=8).map(sorted),
    restarts=st.frozensets(st.integers(0, 8)),
)
@example(fates=[Life("node-a", 1010, 1, "present")], looks=[1011, 1011], restarts=frozenset({0, 1, 2}))
def test_restarts_change_no_total(fates: list[Life], looks: list[int], restarts: frozenset[int]) -> None:
    steady = in_many_looks(fates, looks, frozenset())
    assert in_many_looks(fates, looks, restarts) == steady
    assert steady.total() == len(fates)
