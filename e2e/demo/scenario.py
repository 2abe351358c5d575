"""What the demo deploys: an annotated web Deployment and background load that fills the nodes unevenly."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from prewarm.api.names import ANNOTATION_ENABLED
from prewarm.model.intents import DEPLOYMENTS, NAMESPACES, Json, Manifest, Resource

NAMESPACE = "demo"
BACKGROUND_NAMESPACE = "background"
WEB = "web"
REPOSITORY = "registry.example/shop/web"
BACKGROUND_IMAGE = "registry.example/platform/background:v1"
STARTUP_ANNOTATION = "emulator.prewarm.dev/startup-seconds"


@dataclass(frozen=True)
class Scenario:
    """Sizes of the demo; the defaults are those that README quotes."""

    nodes: int = 60
    zones: int = 3
    replicas: int = 40
    image_bytes: int = 1_000_000_000
    node_bytes_per_second: int = 50_000_000
    """Download rate of one node: 20 s for the image."""
    registry_bytes_per_second: int = 2_500_000_000
    """Egress of the registry, shared by all nodes: 50 nodes at full rate."""
    unpack_bytes_per_second: int = 500_000_000
    startup_seconds: float = 4.0
    """From the start of a container to its readiness."""
    background_deployments: int = 12
    seed: int = 7

    @property
    def pull_seconds(self) -> float:
        """What pulling the image takes on a node that has the registry to itself."""
        return self.image_bytes / self.node_bytes_per_second


def image(version: str) -> str:
    """The web image of a version."""
    return f"{REPOSITORY}:{version}"


def namespace(name: str) -> tuple[Resource, Manifest]:
    """A namespace that enforces the restricted Pod Security Standard, as careful platforms do."""
    labels: Json = {"pod-security.kubernetes.io/enforce": "restricted"}
    return NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def web(scenario: Scenario, version: str, *, opted_in: bool) -> tuple[Resource, Manifest]:
    """The Deployment that is rolled out: stock strategy, one annotation where it is opted in."""
    annotations: Json = {ANNOTATION_ENABLED: "true"} if opted_in else {}
    return DEPLOYMENTS, _deployment(
        NAMESPACE,
        WEB,
        replicas=scenario.replicas,
        image_reference=image(version),
        requests={"cpu": "250m", "memory": "512Mi"},
        startup_seconds=scenario.startup_seconds,
        annotations=annotations,
    )


def background(scenario: Scenario, nodes: Sequence[str]) -> list[tuple[Resource, Manifest]]:
    """Deployments of varied sizes, equal for equal seeds, each kept to some of the nodes as pools of teams are.

    So nodes are filled unevenly. Their image is small.
    """
    random = Random(scenario.seed)  # noqa: S311 - a reproducible scenario, not cryptography
    deployments: list[tuple[Resource, Manifest]] = []
    for index in range(scenario.background_deployments):
        requests: Json = {
            "cpu": f"{random.choice((250, 500, 750, 1000))}m",
            "memory": f"{random.choice((512, 1024, 2048, 4096))}Mi",
        }
        pool = sorted(random.sample(list(nodes), max(1, len(nodes) * random.randint(20, 50) // 100)))
        manifest = _deployment(
            BACKGROUND_NAMESPACE,
            f"background-{index}",
            replicas=random.randint(len(pool) // 2, 2 * len(pool)),
            image_reference=BACKGROUND_IMAGE,
            requests=requests,
            startup_seconds=0.5,
            annotations={},
            pool=pool,
        )
        deployments.append((DEPLOYMENTS, manifest))
    return deployments


def _deployment(
    namespace_name: str,
    name: str,
    *,
    replicas: int,
    image_reference: str,
    requests: Json,
    startup_seconds: float,
    annotations: Json,
    pool: Sequence[str] = (),
) -> Manifest:
    labels: Json = {"app": name}
    container: Json = {
        "name": name,
        "image": image_reference,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": requests},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace_name, "labels": labels, "annotations": annotations},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {STARTUP_ANNOTATION: str(startup_seconds)}},
                "spec": {
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65534,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "terminationGracePeriodSeconds": 1,
                    "affinity": _only_on(pool),
                    "containers": [container],
                },
            },
        },
    }


def _only_on(pool: Sequence[str]) -> Json:
    if not pool:
        return {}
    expression: Json = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(pool)}
    terms: Json = [{"matchExpressions": [expression]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
