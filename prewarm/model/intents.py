"""What is to be written to the cluster, as values. `prewarm.cluster` executes them; nobody else writes."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""A JSON value, as manifests are made of."""
Manifest = Mapping[str, Json]
"""A Kubernetes object ready to be encoded."""


class Resource(Struct, frozen=True):
    """Where a kind is served."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Group and version as manifests write them."""
        return f"{self.group}/{self.version}" if self.group else self.version


PODS = Resource("", "v1", "pods", "Pod")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SERVICES = Resource("", "v1", "services", "Service")
RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")
VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
EVENTS = Resource("", "v1", "events", "Event")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob")
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
CLONE_SETS = Resource("apps.kruise.io", "v1alpha1", "clonesets", "CloneSet")
ADVANCED_STATEFUL_SETS = Resource("apps.kruise.io", "v1beta1", "statefulsets", "StatefulSet")
ADVANCED_DAEMON_SETS = Resource("apps.kruise.io", "v1alpha1", "daemonsets", "DaemonSet")
ROLLOUTS = Resource("argoproj.io", "v1alpha1", "rollouts", "Rollout")
CANARIES = Resource("flagger.app", "v1beta1", "canaries", "Canary")
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
CSI_NODES = Resource("storage.k8s.io", "v1", "csinodes", "CSINode", namespaced=False)
IMAGE_POLICIES = Resource("image.toolkit.fluxcd.io", "v1", "imagepolicies", "ImagePolicy")
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
IMAGE_CACHES = Resource("prewarm.dev", "v1alpha1", "imagecaches", "ImageCache")
NODE_IMAGES = Resource("prewarm.dev", "v1alpha1", "nodeimages", "NodeImage", namespaced=False)
POLICIES = Resource("prewarm.dev", "v1alpha1", "prewarmpolicies", "PrewarmPolicy", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
MUTATING_POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingadmissionpolicybindings",
    "MutatingAdmissionPolicyBinding",
    namespaced=False,
)


class Apply(Struct, frozen=True, tag=True):
    """Server-side apply of a manifest under our one field manager, forced; `subresource` "status" or ""."""

    resource: Resource
    namespace: str
    name: str
    manifest: Manifest
    subresource: str = ""


class Create(Struct, frozen=True, tag=True):
    """Create an object; "already exists" counts as done, since names say what is inside."""

    resource: Resource
    namespace: str
    name: str
    manifest: Manifest


class Delete(Struct, frozen=True, tag=True):
    """Delete an object if it is still the one meant; "not found" and another uid count as done."""

    resource: Resource
    namespace: str
    name: str
    uid: str = ""
    grace_seconds: int | None = None


class RecordEvent(Struct, frozen=True, tag=True):
    """An Event for people about an object; equal ones are counted up, not repeated."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    reason: str
    message: str
    warning: bool = False


class RemoveAnnotation(Struct, frozen=True, tag=True):
    """Take an annotation away if it has this value still; another value, or none, counts as done.

    By JSON patch: server-side apply cannot remove what another field manager owns, as kubectl owns what people type.
    """

    resource: Resource
    namespace: str
    name: str
    annotation: str
    value: str = ""
    uid: str = ""
    """Of the object that is meant; "" for whichever has the name."""


class OpenGate(Struct, frozen=True, tag=True):
    """Let a held rollout go, if exactly this hold stands still; another one, or none, counts as done.

    By JSON patch with tests on the resource version and the marker: what a person does meanwhile wins.
    """

    resource: Resource
    namespace: str
    name: str
    resource_version: str
    marker: str
    """The value of the annotation prewarm.dev/gate-held that stands for the hold."""
    partition: int | None = None
    """Of a StatefulSet: the partition to put back; None opens a Deployment."""
    held: bool = True
    """Whether the rollout is held still; else only the marker is left to be removed."""
    reason: str = ""
    """Why it opens: a word of a closed set."""
    told: RecordEvent | None = None
    """What the workload's owner is told once it is open, and not before."""


class LabelNode(Struct, frozen=True, tag=True):
    """Set and remove labels of ours on a node, if it is still the one meant; a node that is gone counts as done."""

    name: str
    labels: tuple[tuple[str, str | None], ...]
    """Key and value; None removes."""
    uid: str = ""
    namespace: str = ""
    resource: Resource = NODES


Intent = Apply | Create | Delete | RecordEvent | RemoveAnnotation | OpenGate | LabelNode
