"""From a pod's manifest, as the API server gives it, to what the emulated kubelet is told.

Annotations under emulator.prewarm.dev/ say what the containers' processes do, for all main containers of a pod:
`startup-seconds` until Ready, `run-seconds` until the process ends (default: 0.02 where restartPolicy is not Always,
else never), `exit-code`, `stop-seconds` from SIGTERM to the end (`never`: killed after the grace period),
`start-error` (`true`: the command does not exist).
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

from prewarm.api.removal import REMOVALS_VARIABLE, decode_removals
from prewarm.model.images import PullPolicy
from prewarm.model.pods import Affinity, Resources, Toleration
from prewarm.model.quantities import milli, whole
from prewarm.model.removals import Removal
from prewarm.model.selectors import NodeSelectorTerm, Operator, Requirement
from prewarm.simulation.specs import ContainerSpec, ImageVolume, PodSpec, RestartPolicy

PREFIX = "emulator.prewarm.dev/"
_RUN_SECONDS = 0.02
_REMOVES = ["prewarm", "remove-images"]


class _Camel(Struct, rename="camel"):
    """Fields are spelt as in the API."""


class _Requirements(_Camel):
    requests: dict[str, str | int] = {}
    limits: dict[str, str | int] = {}


class _SecurityContext(_Camel):
    run_as_non_root: bool | None = None
    run_as_user: int | None = None


class _Mount(_Camel):
    name: str
    mount_path: str = ""


class _Variable(_Camel):
    name: str
    value: str = ""


class ContainerManifest(_Camel):
    """spec.containers[]."""

    name: str
    image: str = ""
    image_pull_policy: PullPolicy | None = None
    command: list[str] | None = None
    env: list[_Variable] | None = None
    restart_policy: str | None = None
    resources: _Requirements = field(default_factory=_Requirements)
    security_context: _SecurityContext | None = None
    volume_mounts: list[_Mount] | None = None


class _ImageSource(_Camel):
    reference: str = ""
    pull_policy: PullPolicy | None = None


class _Volume(_Camel):
    name: str
    image: _ImageSource | None = None


class _Named(_Camel):
    name: str = ""


class _Expression(_Camel):
    key: str
    operator: Operator
    values: list[str] | None = None


class _Term(_Camel):
    match_expressions: list[_Expression] | None = None
    match_fields: list[_Expression] | None = None


class _Required(_Camel):
    node_selector_terms: list[_Term] = []


class _NodeAffinity(_Camel):
    required_during_scheduling_ignored_during_execution: _Required | None = None


class _Affinity(_Camel):
    node_affinity: _NodeAffinity | None = None


class _Toleration(_Camel):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class SpecManifest(_Camel):
    """spec."""

    containers: list[ContainerManifest] = []
    init_containers: list[ContainerManifest] | None = None
    volumes: list[_Volume] | None = None
    node_name: str = ""
    restart_policy: RestartPolicy = RestartPolicy.ALWAYS
    image_pull_secrets: list[_Named] | None = None
    service_account_name: str = "default"
    termination_grace_period_seconds: float = 30.0
    active_deadline_seconds: float | None = None
    node_selector: dict[str, str] | None = None
    affinity: _Affinity | None = None
    tolerations: list[_Toleration] | None = None
    priority: int = 0
    security_context: _SecurityContext | None = None
    overhead: dict[str, str | int] | None = None


class MetadataManifest(_Camel):
    """metadata."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: float | None = None
    resource_version: str = ""


class PodManifest(_Camel):
    """A pod, status left out."""

    metadata: MetadataManifest
    spec: SpecManifest


def pod_from_manifest(manifest: Mapping[str, object]) -> PodSpec:
    """The kubelet's view of a pod given as JSON values.

    Raises:
        ValueError: if a field has the wrong type; the message names it.
    """
    try:
        return pod_spec(msgspec.convert(manifest, PodManifest))
    except msgspec.ValidationError as error:
        raise ValueError(f"pod manifest: {error}") from None


def pod_spec(pod: PodManifest) -> PodSpec:
    """The kubelet's view of a decoded pod."""
    meta, spec = pod.metadata, pod.spec
    volumes = spec.volumes or []
    image_volumes = tuple(
        ImageVolume(v.name, v.image.reference, v.image.pull_policy or _default_policy(v.image.reference))
        for v in volumes
        if v.image is not None and v.image.reference
    )
    mountable = frozenset(volume.name for volume in image_volumes)
    return PodSpec(
        meta.namespace,
        meta.name,
        meta.uid,
        spec.node_name,
        tuple(_container(c, pod, mountable, init=False) for c in spec.containers),
        tuple(_container(c, pod, mountable, init=True) for c in spec.init_containers or []),
        image_volumes,
        bool(volumes),
        spec.restart_policy,
        tuple(secret.name for secret in spec.image_pull_secrets or [] if secret.name),
        spec.service_account_name,
        spec.termination_grace_period_seconds,
        spec.active_deadline_seconds,
        _requests(spec),
        tuple(sorted((spec.node_selector or {}).items())),
        _affinity(spec),
        tuple(Toleration(t.key, t.operator, t.value, t.effect) for t in spec.tolerations or []),
        spec.priority,
        not any(c.resources.requests or c.resources.limits for c in (*spec.containers, *(spec.init_containers or []))),
        meta.generation,
    )


def _default_policy(reference: str) -> PullPolicy:
    """The API server's default: Always for :latest and for no tag."""
    name = reference.rpartition("/")[2]
    always = "@" not in name and (":" not in name or name.endswith(":latest"))
    return PullPolicy.ALWAYS if always else PullPolicy.IF_NOT_PRESENT


def _seconds(annotations: Mapping[str, str], name: str, default: float | None) -> float | None:
    text = annotations.get(PREFIX + name)
    if text is None:
        return default
    if text == "never":
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        raise ValueError(f"annotation {PREFIX}{name}: {text!r} is not a number of seconds") from None


def _container(c: ContainerManifest, pod: PodManifest, volumes: frozenset[str], *, init: bool) -> ContainerSpec:
    spec, annotations = pod.spec, pod.metadata.annotations or {}
    own, whole_pod = c.security_context or _SecurityContext(), spec.security_context or _SecurityContext()
    non_root = own.run_as_non_root if own.run_as_non_root is not None else whole_pod.run_as_non_root
    user = own.run_as_user if own.run_as_user is not None else whole_pod.run_as_user
    sidecar = init and c.restart_policy == "Always"
    ends = spec.restart_policy is not RestartPolicy.ALWAYS
    run: float | None = _RUN_SECONDS if (ends or init) and not sidecar else None
    startup, stop, code, start_error = 0.0, 0.5 if not ends else None, 0, False
    if not init:
        run = _seconds(annotations, "run-seconds", run)
        startup = _seconds(annotations, "startup-seconds", 0.0) or 0.0
        stop = _seconds(annotations, "stop-seconds", stop)
        code = int(_seconds(annotations, "exit-code", 0.0) or 0)
        start_error = annotations.get(PREFIX + "start-error") == "true"
    command = c.command[0] if c.command else ""
    return ContainerSpec(
        c.name,
        c.image,
        c.image_pull_policy or _default_policy(c.image),
        tuple(mount.name for mount in c.volume_mounts or [] if mount.name in volumes),
        sidecar,
        command,
        any(command.startswith(f"{mount.mount_path.rstrip('/')}/") for mount in c.volume_mounts or []),
        start_error,
        run,
        code,
        startup,
        stop,
        bool(non_root) and user is None,
        _removals(c),
    )


def _removals(c: ContainerManifest) -> tuple[Removal, ...]:
    """What a container is to remove from its node, if it is one of prewarm's that do that."""
    if c.command != _REMOVES:
        return ()
    values = [entry.value for entry in c.env or [] if entry.name == REMOVALS_VARIABLE]
    return decode_removals(values[0]) if values else ()


def _sum(requests: list[Mapping[str, str | int]]) -> Resources:
    extended: dict[str, int] = {}
    cpu = memory = storage = 0
    for request in requests:
        for name, quantity in request.items():
            text = str(quantity)
            if name == "cpu":
                cpu += milli(text)
            elif name == "memory":
                memory += whole(text)
            elif name == "ephemeral-storage":
                storage += whole(text)
            else:
                extended[name] = extended.get(name, 0) + whole(text)
    return Resources(cpu, memory, storage, tuple(sorted(extended.items())))


def _requests(spec: SpecManifest) -> Resources:
    """Main containers and sidecars together, at least the largest init container (resourcehelper.PodRequests)."""
    init = spec.init_containers or []
    always = [c.resources.requests for c in init if c.restart_policy == "Always"]
    steady = _sum([*(c.resources.requests for c in spec.containers), *always, spec.overhead or {}])
    starting = [_sum([c.resources.requests, spec.overhead or {}]) for c in init if c.restart_policy != "Always"]
    return Resources(
        max([steady.milli_cpu, *(r.milli_cpu for r in starting)]),
        max([steady.memory, *(r.memory for r in starting)]),
        max([steady.ephemeral_storage, *(r.ephemeral_storage for r in starting)]),
        steady.extended,
    )


def _affinity(spec: SpecManifest) -> Affinity:
    node = spec.affinity.node_affinity if spec.affinity else None
    required = node.required_during_scheduling_ignored_during_execution if node else None
    if required is None:
        return Affinity()
    return Affinity(
        required_node_terms=tuple(
            NodeSelectorTerm(_requirements(term.match_expressions), _requirements(term.match_fields))
            for term in required.node_selector_terms
        )
    )


def _requirements(expressions: list[_Expression] | None) -> tuple[Requirement, ...]:
    return tuple(Requirement(e.key, e.operator, tuple(e.values or ())) for e in expressions or [])
