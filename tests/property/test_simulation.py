"""What holds for every run of the emulated nodes, whatever pods, images and rates they are given."""

from hypothesis import given, settings
from hypothesis import strategies as st

from prewarm.simulation.agenda import Agenda
from prewarm.simulation.bandwidth import Egress, Flow, NodeLink
from prewarm.simulation.fleet import Fleet
from prewarm.simulation.outputs import Output, PullFinished
from prewarm.simulation.registry import Layer, Registries, Registry, RemoteImage
from prewarm.simulation.specs import ContainerSpec, NodeProfile, PodSpec, RestartPolicy

MB = 1_000_000
HOST = "registry.example"

pods = st.lists(
    st.tuples(
        st.integers(0, 3),  # node
        st.integers(0, 5),  # image
        st.floats(0, 20, allow_nan=False),  # bound at
    ),
    min_size=1,
    max_size=12,
)
layer_sizes = st.lists(st.integers(1, 60), min_size=1, max_size=3)
images = st.lists(layer_sizes, min_size=6, max_size=6)
bandwidths = st.lists(st.integers(1, 40), min_size=4, max_size=4)
slots = st.sampled_from([1, 2, None])


def fleet(contents: list[list[int]], rates: list[int], egress: int, pull_slots: int | None) -> Fleet:
    registries = Registries([Registry(HOST, egress * MB)])
    for number, sizes in enumerate(contents):
        layers = tuple(Layer(f"sha256:{number:02x}{n:062x}", size * MB) for n, size in enumerate(sizes))
        registries.push(f"{HOST}/app-{number}:v1", RemoteImage(f"sha256:{number:064x}", layers, 1000))
    made = Fleet(registries, seed="property")
    for number, rate in enumerate(rates):
        made.add_node(NodeProfile(f"node-{number}", bandwidth=rate * MB, pull_slots=pull_slots))
    return made


def pod(number: int, node: int, image: int) -> PodSpec:
    container = ContainerSpec("app", f"{HOST}/app-{image}:v1", run_seconds=0.1)
    return PodSpec(
        "default", f"pod-{number}", f"uid-{number}", f"node-{node}", (container,), restart_policy=RestartPolicy.NEVER
    )


def run(
    chosen: list[tuple[int, int, float]],
    contents: list[list[int]],
    rates: list[int],
    egress: int,
    pull_slots: int | None,
    *,
    step: float | None = None,
) -> tuple[Fleet, list[Output]]:
    made = fleet(contents, rates, egress, pull_slots)
    outputs: list[Output] = []
    for number, (node, image, at) in enumerate(sorted(chosen, key=lambda c: c[2])):
        while step is not None and made.now + step < at:
            outputs += made.advance(made.now + step)
        outputs += made.advance(at)
        made.pod_bound(pod(number, node, image))
    outputs += made.advance(3000)
    return made, outputs


def pulls_of(outputs: list[Output]) -> list[PullFinished]:
    return [output for output in outputs if isinstance(output, PullFinished)]


@settings(max_examples=40, deadline=None)
@given(pods, images, bandwidths, st.integers(1, 100), slots)
def test_registries_send_exactly_what_nodes_receive(
    chosen: list[tuple[int, int, float]],
    contents: list[list[int]],
    rates: list[int],
    egress: int,
    pull_slots: int | None,
) -> None:
    made, outputs = run(chosen, contents, rates, egress, pull_slots)
    pulls = pulls_of(outputs)
    received = sum(pull.downloaded_bytes - 1000 for pull in pulls if pull.downloaded_bytes)
    assert abs(made.egress(HOST).bytes_sent - received) <= 100 * len(pulls)
    # Every image that a pod asked for is on its node, downloaded once.
    asked = {(f"node-{node}", f"{HOST}/app-{image}:v1") for node, image, _ in chosen}
    downloads = [(pull.node, pull.image) for pull in pulls if pull.downloaded_bytes]
    assert sorted(downloads) == sorted(asked)


@settings(max_examples=40, deadline=None)
@given(pods, images, bandwidths)
def test_one_slot_serves_pulls_in_the_order_in_which_they_queued(
    chosen: list[tuple[int, int, float]], contents: list[list[int]], rates: list[int]
) -> None:
    _, outputs = run(chosen, contents, rates, 50, 1)
    for node in {f"node-{n}" for n, _, _ in chosen}:
        pulls = [pull for pull in pulls_of(outputs) if pull.node == node]
        assert [pull.queued_at for pull in pulls] == sorted(pull.queued_at for pull in pulls)
        ends = [0.0, *(pull.at for pull in pulls)]
        assert all(pull.started_at >= before for pull, before in zip(pulls, ends, strict=False))


@settings(max_examples=25, deadline=None)
@given(pods, images, bandwidths, st.integers(1, 100), slots, st.floats(0.05, 3.0, allow_nan=False))
def test_the_same_inputs_give_the_same_run_however_often_time_is_advanced(
    chosen: list[tuple[int, int, float]],
    contents: list[list[int]],
    rates: list[int],
    egress: int,
    pull_slots: int | None,
    step: float,
) -> None:
    _, one = run(chosen, contents, rates, egress, pull_slots)
    _, same = run(chosen, contents, rates, egress, pull_slots)
    _, stepped = run(chosen, contents, rates, egress, pull_slots, step=step)
    assert one == same
    assert one == stepped


flows = st.lists(
    st.tuples(st.floats(0, 10, allow_nan=False), st.integers(0, 3), st.integers(1, 80)), min_size=1, max_size=14
)


@settings(max_examples=60, deadline=None)
@given(flows, bandwidths, st.integers(1, 60))
def test_rates_stay_within_registry_and_node_and_waste_nothing(
    started: list[tuple[float, int, int]], rates: list[int], egress: int
) -> None:
    """Max-min: never above a limit, and no download could go faster while the registry has something left."""
    agenda = Agenda()
    link = Egress(agenda, float(egress * MB))
    nodes = [NodeLink(float(rate * MB)) for rate in rates]
    running: list[Flow] = []
    total = 0
    for at, node, size in sorted(started):
        agenda.run_until(at)
        running.append(link.start(nodes[node], float(size * MB)))
        total += size * MB
        check(link, nodes, running, egress * MB)
    while (wakeup := agenda.next_time()) is not None:
        agenda.run_until(wakeup)
        check(link, nodes, running, egress * MB)
    assert all(flow.done.fired for flow in running)
    assert abs(link.bytes_sent - total) <= 100 * len(running)


def check(link: Egress, nodes: list[NodeLink], running: list[Flow], limit: int) -> None:
    assert link.rate <= limit * (1 + 1e-9)
    active = [flow for flow in running if not flow.done.fired]
    rates = {id(flow): flow.group.rate for flow in active if flow.group is not None}
    assert len(rates) == len(active)
    for node in nodes:
        assert sum(rates[id(flow)] for flow in active if flow.node is node) <= node.cap * (1 + 1e-9)
    wanted = sum(flow.group.cap for flow in active if flow.group is not None)
    assert link.rate >= min(wanted, limit) * (1 - 1e-9)
