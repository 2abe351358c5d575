"""Pod specs become shapes as the scheduler and the kubelet understand them."""

import json
from typing import Any

import msgspec
import pytest

from prewarm.cluster.decoding.kinds import Kinds
from prewarm.cluster.decoding.pod_spec import WireTemplate, pod_template
from prewarm.model.images import PullPolicy
from prewarm.model.pods import ContainerKind, Pod, PodShape, Toleration
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement
from tests.support.manifests import Object, pod

MIB = 2**20


def decoded(spec: Object, **metadata: Any) -> Pod:
    value = Kinds().pods.one(json.dumps(pod("a", **metadata) | {"spec": spec}).encode()).value
    assert value is not None
    return value


def shape(spec: Object) -> PodShape:
    return decoded(spec).shape


def container(name: str = "c", cpu: str | int | None = None, memory: str | None = None, **fields: object) -> Object:
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value is not None}
    return {"name": name, "image": "registry.example/a:v1", "resources": {"requests": requests}, **fields}


def sidecar(name: str, cpu: str) -> Object:
    return container(name, cpu, restartPolicy="Always")


@pytest.mark.parametrize(
    ("spec", "milli_cpu"),
    [
        ({"containers": [container(cpu="100m"), container(cpu=1)]}, 1100),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="3")]}, 3000),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="500m")]}, 1000),
        ({"containers": [container(cpu="1")], "initContainers": [sidecar("s", "2")]}, 3000),
        # An init container runs beside the sidecars started before it, not those after.
        ({"containers": [container(cpu="1")], "initContainers": [sidecar("s", "1"), container(cpu="5")]}, 6000),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="5"), sidecar("s", "1")]}, 5000),
        ({"containers": [container(cpu="1")], "overhead": {"cpu": "250m"}}, 1250),
        # Pod-level resources take the place of the containers' (KEP-2837).
        ({"containers": [container(cpu="1")], "resources": {"requests": {"cpu": "4"}}}, 4000),
        ({"containers": [container()]}, 0),
    ],
)
def test_requests_are_those_of_the_scheduler(spec: Object, milli_cpu: int) -> None:
    assert shape(spec).requests.milli_cpu == milli_cpu


def test_overhead_is_part_of_the_requests() -> None:
    found = shape({"containers": [container(cpu="1")], "overhead": {"cpu": "250m"}, "runtimeClassName": "heavy"})
    assert (found.requests.milli_cpu, found.overhead.milli_cpu, found.runtime_class) == (1250, 250, "heavy")


def template(spec: Object) -> PodShape:
    wire = msgspec.convert({"spec": spec}, WireTemplate)
    return pod_template(wire, pytest.fail).shape


def limited(cpu: str, **fields: object) -> Object:
    """A container with a limit, and requests only if they are given."""
    return {"name": "c", "image": "registry.example/a:v1", "resources": {"limits": {"cpu": cpu}, **fields}}


@pytest.mark.parametrize(
    ("spec", "milli_cpu"),
    [
        ({"containers": [limited("2")]}, 2000),
        ({"containers": [limited("2", requests={"cpu": "1"})]}, 1000),
        ({"containers": [limited("2", requests={"memory": "1Mi"})]}, 2000),
        ({"containers": [container(cpu="1")], "initContainers": [limited("3")]}, 3000),
        ({"containers": [container()], "resources": {"limits": {"cpu": "4"}}}, 4000),
        ({"containers": [container(cpu="1")], "resources": {"limits": {"cpu": "4"}}}, 1000),
        ({"containers": [limited("2")], "resources": {"limits": {"cpu": "4"}}}, 2000),
        ({"containers": [container()], "resources": {"limits": {"cpu": "4"}, "requests": {"cpu": "3"}}}, 3000),
    ],
)
def test_in_a_template_limits_stand_in_for_requests_as_in_the_pods_to_come(spec: Object, milli_cpu: int) -> None:
    found = template(spec)
    assert (found.requests.milli_cpu, found.scoring_milli_cpu) == (milli_cpu, milli_cpu)


@pytest.mark.parametrize(("on_host", "ports"), [(True, (80, 8443)), (False, (8443,))])
def test_a_template_on_the_hosts_network_takes_its_containers_ports(on_host: bool, ports: tuple[int, ...]) -> None:
    listed = [{"containerPort": 80}, {"containerPort": 443, "hostPort": 8443}]
    found = template({"containers": [container(ports=listed)], "hostNetwork": on_host})
    assert tuple(port.port for port in found.host_ports) == ports


@pytest.mark.parametrize(
    ("spec", "milli_cpu", "memory"),
    [
        ({"containers": [container()]}, 100, 200 * MIB),
        ({"containers": [container(), container(cpu="1", memory="1Mi")]}, 1100, 201 * MIB),
        ({"containers": [container(cpu="0", memory="0")]}, 0, 0),
        ({"containers": [container(cpu="50m")], "initContainers": [container()]}, 100, 200 * MIB),
    ],
)
def test_scores_count_containers_without_requests(spec: Object, milli_cpu: int, memory: int) -> None:
    found = shape(spec)
    assert (found.scoring_milli_cpu, found.scoring_memory) == (milli_cpu, memory)


def test_extended_resources_are_kept_by_name() -> None:
    requests = {"example.com/gpu": "2", "hugepages-2Mi": "4Mi", "ephemeral-storage": "1Gi"}
    found = shape({"containers": [{"name": "c", "image": "a", "resources": {"requests": requests}}]})
    assert found.requests.extended == (("example.com/gpu", 2), ("hugepages-2Mi", 4 * MIB))
    assert found.requests.ephemeral_storage == 2**30


def test_a_quantity_that_makes_no_sense_costs_only_itself() -> None:
    kinds = Kinds()
    spec = {"containers": [container(cpu="much", memory="64Mi")]}
    found = kinds.pods.one(json.dumps(pod("a") | {"spec": spec}).encode()).value
    assert found is not None
    assert (found.shape.requests.milli_cpu, found.shape.requests.memory) == (0, 64 * MIB)
    assert kinds.problems.count > 0


@pytest.mark.parametrize("memory", ["100E", "1e40", "-5"])
def test_what_somebody_asks_for_cannot_overflow_the_sums(memory: str) -> None:
    assert 0 <= shape({"containers": [container(memory=memory)] * 1000}).requests.memory < 2**63


def test_images_are_in_the_kubelets_order() -> None:
    found = shape(
        {
            "containers": [container("main", image="registry.example/main:v1")],
            "initContainers": [
                container("init", image="registry.example/init:v1"),
                container("proxy", image="registry.example/proxy:v1", restartPolicy="Always"),
            ],
            "volumes": [
                {"name": "model", "image": {"reference": "registry.example/model:v1", "pullPolicy": "Always"}},
                {"name": "token", "projected": {"sources": []}},
            ],
        }
    )
    assert [one.kind for one in found.containers] == [
        ContainerKind.IMAGE_VOLUME,
        ContainerKind.INIT,
        ContainerKind.SIDECAR,
        ContainerKind.MAIN,
    ]
    assert found.images == tuple(f"registry.example/{name}:v1" for name in ("model", "init", "proxy", "main"))


@pytest.mark.parametrize(
    ("image", "written", "policy"),
    [
        ("registry.example:5000/a", "", PullPolicy.ALWAYS),
        ("registry.example:5000/a:latest", "", PullPolicy.ALWAYS),
        ("registry.example:5000/a:v1", "", PullPolicy.IF_NOT_PRESENT),
        ("registry.example/a@sha256:" + "0" * 64, "", PullPolicy.IF_NOT_PRESENT),
        ("registry.example/a", "Never", PullPolicy.NEVER),
        ("registry.example/a:v1", "Sometimes", PullPolicy.IF_NOT_PRESENT),
    ],
)
def test_pull_policy_is_that_of_the_api_server(image: str, written: str, policy: PullPolicy) -> None:
    (found,) = shape({"containers": [container(image=image, imagePullPolicy=written)]}).containers
    assert found.pull_policy is policy


def test_replicas_share_one_shape_whatever_their_token_volumes_and_nodes() -> None:
    def replica(number: int) -> PodShape:
        volumes = [{"name": f"kube-api-access-{number}", "projected": {"sources": []}}]
        return shape({"containers": [container(cpu="1")], "volumes": volumes, "nodeName": f"n{number}"})

    assert replica(1) is replica(2)
    assert replica(1) is shape({"containers": [container(cpu="1000m")]})


def test_a_daemon_sets_bound_pods_share_one_shape_though_each_asks_for_its_node() -> None:
    def of_node(name: str, **bound: str) -> PodShape:
        fields = [{"key": "metadata.name", "operator": "In", "values": [name]}]
        terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
        required = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
        return shape({"containers": [container(cpu="1")], "affinity": required, **bound})

    assert of_node("n1", nodeName="n1") is of_node("n2", nodeName="n2")
    waiting = of_node("n1").affinity.required_node_terms
    assert waiting is not None
    assert [term.matches("n1", {}) for term in waiting] == [True]


def test_claims_of_ephemeral_volumes_are_named_after_pod_and_volume() -> None:
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
    ]
    assert shape({"containers": [], "volumes": volumes}).volume_claims == ("data-0", "a-scratch")


def test_host_ports_of_containers_and_sidecars_are_taken() -> None:
    found = shape(
        {
            "containers": [container(ports=[{"containerPort": 80}, {"hostPort": 8080, "hostIP": "10.0.0.1"}])],
            "initContainers": [
                sidecar("s", "1") | {"ports": [{"hostPort": 53, "protocol": "UDP"}]},
                container("init", ports=[{"hostPort": 99}]),
            ],
        }
    )
    assert {(port.port, port.protocol, port.host_ip) for port in found.host_ports} == {
        (53, "UDP", "0.0.0.0"),  # noqa: S104
        (8080, "TCP", "10.0.0.1"),
    }


def test_affinity_is_read_in_full() -> None:
    zone = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
    against = {"topologyKey": "host", "labelSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}}
    found = shape(
        {
            "containers": [],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [zone]},
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "preference": zone}],
                },
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [against],
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 3, "podAffinityTerm": against}],
                },
            },
        }
    ).affinity
    term = NodeSelectorTerm((Requirement("zone", Operator.IN, ("a", "b")),))
    assert found.required_node_terms == (term,)
    assert [(preferred.weight, preferred.term) for preferred in found.preferred_node_terms] == [(7, term)]
    (required,) = found.required_pod_anti_affinity
    assert required.selector == LabelSelector((("app", "web"),))
    assert required.namespace_selector == LabelSelector()
    assert found.preferred_pod_anti_affinity[0].term == required
    assert found.concerns_pods


def test_a_requirement_with_an_unknown_operator_matches_no_node() -> None:
    """Better no node than a wrong one: the pod's other terms still count."""
    terms = [
        {"matchExpressions": [{"key": "zone", "operator": "Near"}]},
        {"matchExpressions": [{"key": "zone", "operator": "Exists"}]},
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    found = shape({"containers": [], "affinity": {"nodeAffinity": required}}).affinity
    assert found.required_node_terms is not None
    assert [term.matches("n1", {"zone": "a"}) for term in found.required_node_terms] == [False, True]


def test_spread_constraints_have_the_apis_defaults() -> None:
    base = {"maxSkew": 2, "topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}
    more = {"whenUnsatisfiable": "ScheduleAnyway", "nodeAffinityPolicy": "Ignore", "nodeTaintsPolicy": "Honor"}
    hard, soft = shape(
        {"containers": [], "topologySpreadConstraints": [base | {"whenUnsatisfiable": "DoNotSchedule"}, base | more]}
    ).spread
    assert (hard.hard, hard.honor_node_affinity, hard.honor_node_taints) == (True, True, False)
    assert (soft.hard, soft.honor_node_affinity, soft.honor_node_taints) == (False, False, True)


def test_tolerations_without_operator_mean_equal() -> None:
    found = shape({"containers": [], "tolerations": [{"key": "team", "value": "a", "effect": "NoSchedule"}]})
    assert found.tolerations == (Toleration("team", "Equal", "a", "NoSchedule"),)


def test_of_annotations_only_ours_are_kept() -> None:
    annotations = {"prewarm.dev/images": "[]", "big.example/blob": "x" * 10_000}
    found = decoded({"containers": []}, annotations=annotations)
    assert found.annotations == {"prewarm.dev/images": "[]"}


def test_a_pods_progress_is_read_from_its_conditions() -> None:
    def condition(kind: str, second: int, status: str = "True") -> Object:
        return {"type": kind, "status": status, "lastTransitionTime": f"2026-11-20T10:00:{second:02d}Z"}

    conditions = [
        condition("PodScheduled", 1),
        condition("PodReadyToStartContainers", 2),
        condition("Ready", 3, "False"),
    ]
    waiting = {"reason": "ErrImagePull", "message": "not found"}
    status = {
        "phase": "Pending",
        "conditions": conditions,
        "containerStatuses": [{"name": "c", "state": {"waiting": waiting}, "imageID": ""}],
        "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-11-20T10:00:05Z"}}}
        ],
    }
    value = Kinds().pods.one(json.dumps(pod("a") | {"status": status}).encode()).value
    assert value is not None
    assert value.scheduled_at is not None
    assert value.sandbox_ready_at == value.scheduled_at + 1
    assert value.ready_at is None
    init, main = value.containers
    assert (init.init, init.exit_code, init.finished_at) == (True, 0, value.scheduled_at + 4)
    assert (main.reason, main.message) == ("ErrImagePull", "not found")


def test_a_pod_that_stops_was_told_its_grace_period_before_its_deletion_timestamp() -> None:
    pod = decoded({}, deletionTimestamp="2026-11-20T10:00:30Z", deletionGracePeriodSeconds=30)
    assert pod.deleted_at is not None
    assert pod.stopping_since == pod.deleted_at - 30
    assert decoded({}).stopping_since is None


def test_json_that_is_no_pod_keeps_its_key() -> None:
    decoded_pod = Kinds().pods.one(msgspec.json.encode({"metadata": {"name": "a", "namespace": "b"}, "spec": 7}))
    assert (decoded_pod.key, decoded_pod.value) == (("b", "a"), None)


def test_a_number_beyond_64_bits_costs_only_its_object() -> None:
    kinds = Kinds()
    huge = pod("huge") | {"spec": {"containers": [], "priority": 2**70}}
    page = kinds.pods.page(json.dumps({"items": [huge, pod("b")]}).encode())
    assert [item.value is None for item in page.items] == [True, False]
    assert kinds.problems.count == 1
