"""What must the API server refuse? The ValidatingAdmissionPolicies that bind authors of ImageCaches, and ourselves.

Their words are CEL, evaluated by the API server. `authorizer` asks it whether the requester has a right (KEP-3488).
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from prewarm.api import names
from prewarm.model.intents import Json, Manifest
from prewarm.presence import PULL_CONTAINER_PREFIX
from prewarm.puller.pods import HELPER_CONTAINER, SENTINEL_CONTAINER
from prewarm.puller.purge_pods import COMMAND as PURGE_COMMAND
from prewarm.puller.settings import PullerSettings

RELEASE: Final = "prewarm"
"""Name of the release, of its ServiceAccount, and prefix of the policies' names, where nothing else is said."""
NAMESPACE: Final = "prewarm-system"
PLAN_VERB: Final = "plan"
"""On imagecaches.prewarm.dev, in the whole cluster: may mark ImageCaches as planned. No request has this verb."""
PURGING: Final = "purging"
"""Variable that is `true` where removing images is switched on."""
ADDED: Final = "added"
"""Variable that lists the containers that others may add to puller pods."""

_AUTHORS_CREATE_PODS = (
    "an ImageCache has pods created in its namespace, so its author must be allowed to create pods there"
)
_MAY_PLAN = f"authorizer.group('{names.GROUP}').resource('imagecaches').check('{PLAN_VERB}').allowed()"
_SPEC_IS_NEW = "request.operation == 'CREATE' || object.spec != oldObject.spec"
_API = "admissionregistration.k8s.io/v1"


class AddedContainer(Struct, frozen=True):
    """A container that something else adds to every pod and that a puller pod may have, such as a mesh's proxy."""

    name: str
    image: str
    """Its repository, as its image is written: a name alone would let a stolen token run any image under it."""


class Validation(Struct, frozen=True):
    """A condition that a request must meet, and what its author is told otherwise."""

    expression: str
    message: str
    message_expression: str = ""


class Guard(Struct, frozen=True):
    """A ValidatingAdmissionPolicy before it has a name."""

    suffix: str
    """Of its name, after the release's."""
    group: str
    resource: str
    operations: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    validations: tuple[Validation, ...]
    only_user: str = ""
    """Requests of others pass unseen."""
    only_label: str = ""
    """Objects that have not this label, with the value "true", before or after, pass unseen."""


def guards(
    namespace: str = NAMESPACE,
    service_account: str = RELEASE,
    *,
    purging: bool = False,
    added: Sequence[AddedContainer] = (),
) -> tuple[Guard, ...]:
    """All of them, for a controller that runs as this ServiceAccount."""
    user = f"system:serviceaccount:{namespace}:{service_account}"
    return (_authors(), _pullers(user, namespace, added, purging=purging), _own_caches(user), _false_pullers())


def policy_manifest(guard: Guard, release: str = RELEASE) -> Manifest:
    """The ValidatingAdmissionPolicy."""
    matching: dict[str, Json] = {
        "resourceRules": [
            {
                "apiGroups": [guard.group],
                "apiVersions": ["*"],
                "operations": list(guard.operations),
                "resources": [guard.resource],
            }
        ]
    }
    if guard.only_label:
        matching["objectSelector"] = {"matchLabels": {guard.only_label: names.TRUE}}
    spec: dict[str, Json] = {"failurePolicy": "Fail", "matchConstraints": matching}
    if guard.only_user:
        spec["matchConditions"] = [
            {"name": "requester", "expression": f"request.userInfo.username == '{guard.only_user}'"}
        ]
    spec["variables"] = [{"name": name, "expression": expression} for name, expression in guard.variables]
    spec["validations"] = [_validation(validation) for validation in guard.validations]
    return {
        "apiVersion": _API,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"{release}-{guard.suffix}"},
        "spec": spec,
    }


def binding_manifest(guard: Guard, release: str = RELEASE) -> Manifest:
    """The ValidatingAdmissionPolicyBinding that puts it into force everywhere."""
    name = f"{release}-{guard.suffix}"
    return {
        "apiVersion": _API,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }


def _validation(validation: Validation) -> Json:
    fields: dict[str, Json] = {"expression": validation.expression, "message": validation.message}
    if validation.message_expression:
        fields["messageExpression"] = validation.message_expression
    # With the default, Invalid, clients would take it for a fault of the manifest.
    fields["reason"] = "Forbidden"
    return fields


def _label(where: str, name: str) -> str:
    return f"{where}.metadata.?labels['{name}'].orValue('')"


def _annotation(where: str, name: str) -> str:
    return f"{where}.metadata.?annotations['{name}'].orValue('')"


def _is_labelled(label: str) -> str:
    return f"variables.labels[?'{label}'].orValue('') == '{names.TRUE}'"


def _same_as_before(expression: str, before: str) -> str:
    return f"{expression} == (request.operation == 'CREATE' ? '' : {before})"


def _asked(name: str) -> str:
    """Whether a request annotation is set anew; an empty value asks, too, and a removed one does not."""
    key = f"'{name}'"
    new, old = f"object.metadata.?annotations[{key}]", f"oldObject.metadata.?annotations[{key}]"
    return f"({new}.hasValue() && (!{old}.hasValue() || {new}.value() != {old}.value()))"


def _authors() -> Guard:
    """Who writes an ImageCache has pods created: nobody gets more by it than pods of his own could do.

    The garbage collector, which changes owner references alone, needs no exception; our ServiceAccount and
    administrators have the rights that are asked for.
    """
    planned, workload = names.LABEL_PLANNED, names.ANNOTATION_WORKLOAD
    create_pods = "authorizer.group('').resource('pods').namespace(request.namespace).check('create').allowed()"
    return Guard(
        "imagecaches",
        names.GROUP,
        "imagecaches",
        ("CREATE", "UPDATE"),
        (
            (
                "acts",
                f"{_SPEC_IS_NEW} || {_asked(names.ANNOTATION_REFRESH)} || {_asked(names.ANNOTATION_PURGE)}",
            ),
            ("mayPlan", _MAY_PLAN),
            ("workload", _annotation("object", workload)),
        ),
        (
            Validation(
                f"!variables.acts || {create_pods}",
                _AUTHORS_CREATE_PODS,
                f"'{_AUTHORS_CREATE_PODS}: ' + request.userInfo.username + ' may not in ' + request.namespace",
            ),
            Validation(
                f"{_same_as_before(_label('object', planned), _label('oldObject', planned))} || variables.mayPlan",
                f"only prewarm's planner sets, changes or removes the label {planned}",
            ),
            Validation(
                f"{_same_as_before('variables.workload', _annotation('oldObject', workload))} || "
                "variables.workload == '' || variables.workload.matches('^[a-z]+/[^/]+/[^/]+$') && "
                "variables.workload.split('/')[1] == request.namespace || variables.mayPlan",
                f"the annotation {workload} names a workload of the same namespace, as deployment/shop/web",
            ),
        ),
    )


def _every(where: str, variable: str, condition: str) -> str:
    return f"{where}.all({variable}, {condition})"


def _or_deletion(expression: str) -> str:
    return f"request.operation == 'DELETE' || {expression}"


def _one_of(commands: Sequence[Sequence[str]]) -> str:
    """A CEL list of lists of texts; the texts are our own settings' defaults, without quotes in them."""
    return "[" + ", ".join("[" + ", ".join(f"'{word}'" for word in command) + "]" for command in commands) + "]"


def _containers_text(added: Sequence[AddedContainer]) -> str:
    """A CEL list of maps; the chart writes the same text."""
    return "[" + ", ".join(f"{{'name': '{c.name}', 'image': '{c.image}'}}" for c in added) + "]"


def _pullers(user: str, namespace: str, added: Sequence[AddedContainer], *, purging: bool) -> Guard:
    """Our own ServiceAccount creates pullers and deletes pullers, nothing else: stolen, its token gives no more.

    Whoever adds something to every pod (a mesh's injector, a policy) has to leave out pods with our label, or its
    containers have to be named: they may have commands, ports and probes of their own then, and no more privileges
    than ours. Where removing images is switched off, pods that are still there for it may go.
    """
    wanted = f"(variables.{PURGING} || request.operation == 'DELETE')"
    is_added = (
        "c.name == a.name && (c.?image.orValue('') == a.image || c.?image.orValue('').startsWith(a.image + '@') || "
        # A tag holds no slash: of an image without a path, what stands before the colon would be any registry's host.
        "(c.?image.orValue('').startsWith(a.image + ':') && !c.image.substring(size(a.image) + 1).contains('/')))"
    )
    return Guard(
        "pullers",
        "",
        "pods",
        ("CREATE", "DELETE"),
        (
            ("pod", "request.operation == 'DELETE' ? oldObject : object"),
            ("labels", "variables.pod.metadata.?labels.orValue({})"),
            (PURGING, str(purging).lower()),
            (
                "purger",
                f"{wanted} && request.namespace == '{namespace}' && {_is_labelled(names.LABEL_PURGER)}",
            ),
            ("containers", "variables.pod.spec.?initContainers.orValue([]) + variables.pod.spec.containers"),
            (ADDED, _containers_text(added)),
            ("own", f"variables.containers.filter(c, !variables.{ADDED}.exists(a, {is_added}))"),
            ("volumes", "variables.pod.spec.?volumes.orValue([])"),
        ),
        (
            Validation(
                f"variables.purger || {_is_labelled(names.LABEL_PULLER)}",
                f"prewarm creates and deletes only pods with the label {names.LABEL_PULLER}: true",
            ),
            *(
                Validation(_or_deletion(f"({validation.expression})"), validation.message)
                for validation in (*_host_shape(), *_puller_shape(), *_container_shape(), *_purger_shape())
            ),
        ),
        user,
    )


_HANDLERS = ("lifecycle.?postStart", "lifecycle.?preStop", "livenessProbe", "readinessProbe", "startupProbe")


def _host_shape() -> tuple[Validation, ...]:
    """What holds for every pod of ours."""
    return (
        Validation(
            "variables.pod.spec.?nodeName.orValue('') != ''",
            "a pod of prewarm names its node in spec.nodeName",
        ),
        Validation(
            "!variables.pod.spec.?automountServiceAccountToken.orValue(true)",
            "a pod of prewarm has automountServiceAccountToken: false",
        ),
        Validation(
            "!variables.pod.spec.?hostPID.orValue(false) && !variables.pod.spec.?hostIPC.orValue(false) && "
            "!variables.pod.spec.?shareProcessNamespace.orValue(false)",
            "a pod of prewarm shares no processes: neither hostPID, hostIPC nor shareProcessNamespace",
        ),
        Validation(
            "!variables.pod.spec.?priorityClassName.orValue('').startsWith('system-')",
            "a pod of prewarm has no system priority class: the kubelet would evict others for it",
        ),
        Validation("variables.pod.spec.?restartPolicy.orValue('') == 'Never'", "a pod of prewarm is never restarted"),
        Validation(
            "size(variables.pod.spec.?resourceClaims.orValue([])) == 0 && "
            "size(variables.pod.spec.?ephemeralContainers.orValue([])) == 0",
            "a pod of prewarm has no resource claims and no ephemeral containers",
        ),
    )


def _container_shape() -> tuple[Validation, ...]:
    """What holds for every container of ours."""
    security = "c.?securityContext"
    return (
        Validation(
            _every(
                "variables.containers",
                "c",
                f"!{security}.?privileged.orValue(false) && !{security}.?allowPrivilegeEscalation.orValue(true) && "
                f"size({security}.?capabilities.?add.orValue([])) == 0 && "
                f"{security}.?capabilities.?drop.orValue([]).exists(d, d == 'ALL') && "
                f"{security}.?readOnlyRootFilesystem.orValue(false) && "
                f"{security}.?procMount.orValue('Default') == 'Default'",
            ),
            "each container of a pod of prewarm drops all capabilities, has a read-only root file system and is "
            "neither privileged nor allowed to escalate: leave pods with prewarm's labels out of what adds containers",
        ),
        Validation(
            _every(
                "variables.containers",
                "c",
                "size(c.?envFrom.orValue([])) == 0 && c.?env.orValue([]).all(e, "
                "!e.?valueFrom.?secretKeyRef.hasValue() && !e.?valueFrom.?configMapKeyRef.hasValue())",
            ),
            "a container of prewarm takes no environment from Secrets or ConfigMaps",
        ),
        Validation(
            _every(
                "variables.own",
                "c",
                "!has(c.lifecycle) && !has(c.livenessProbe) && !has(c.readinessProbe) && !has(c.startupProbe) && "
                "size(c.?ports.orValue([])) == 0",
            ),
            "a container of prewarm has no hooks, probes or ports",
        ),
        Validation(
            _every(
                "variables.containers",
                "c",
                "size(c.?volumeDevices.orValue([])) == 0 && "
                "c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0) && "
                # The kubelet would ask in the node's name.
                + " && ".join(
                    f"c.?{handler}.?{action}.?host.orValue('') == ''"
                    for handler in _HANDLERS
                    for action in ("httpGet", "tcpSocket")
                ),
            ),
            "a container in a pod of prewarm has no devices, no port of its node, and hooks and probes of its own pod "
            "only",
        ),
    )


def _puller_shape() -> tuple[Validation, ...]:
    settings = PullerSettings()
    commands = _one_of((settings.helper_command, settings.hold_command, settings.mount_command))
    owner = f"o.apiVersion.startsWith('{names.GROUP}/') && o.kind == 'ImageCache' && o.?controller.orValue(false)"
    own_names = f"^({HELPER_CONTAINER}|{SENTINEL_CONTAINER}|{PULL_CONTAINER_PREFIX}[0-9]+)$"
    rules = (
        # First, as only the first refusal is told: what was added has other faults, too.
        Validation(
            _every(
                "variables.own",
                "c",
                f"c.name.matches('{own_names}') && c.?command.orValue([]) in {commands} && "
                "size(c.?args.orValue([])) == 0",
            ),
            "a puller pod has no containers but prewarm's, with prewarm's commands: leave pods with the label "
            f"{names.LABEL_PULLER} out of what adds containers, or name these in admissionPolicies.addedContainers of "
            "the chart",
        ),
        Validation(
            "size(variables.pod.metadata.?ownerReferences.orValue([])) == 1 && "
            + _every("variables.pod.metadata.ownerReferences", "o", owner),
            "a puller pod is controlled by an ImageCache",
        ),
        Validation(
            "!variables.pod.spec.?hostNetwork.orValue(false)",
            "a puller pod does not use its node's network",
        ),
        Validation(
            _every("variables.volumes", "v", "has(v.emptyDir) || has(v.image)"),
            "a puller pod mounts empty directories and images, nothing else: leave pods with prewarm's labels out of "
            "what adds volumes",
        ),
        Validation(
            "variables.pod.spec.?securityContext.?runAsNonRoot.orValue(false) && "
            "variables.pod.spec.?securityContext.?seccompProfile.?type.orValue('') == 'RuntimeDefault' && "
            + _every(
                "variables.containers",
                "c",
                "c.?securityContext.?runAsNonRoot.orValue(true) && c.?securityContext.?runAsUser.orValue(1) != 0 && "
                "c.?securityContext.?seccompProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault'",
            ),
            "a puller pod runs as an ordinary user under the runtime's seccomp profile",
        ),
    )
    return tuple(Validation(f"variables.purger || ({rule.expression})", rule.message) for rule in rules)


def _purger_shape() -> tuple[Validation, ...]:
    rules = (
        Validation(
            _every(
                "variables.volumes",
                "v",
                "has(v.emptyDir) || has(v.downwardAPI) || has(v.hostPath) && v.hostPath.?type.orValue('') == 'Socket'",
            ),
            "a purge pod mounts the runtime's socket, and nothing else of its node",
        ),
        Validation(
            _every(
                "variables.containers",
                "c",
                f"c.?command.orValue([]) in {_one_of((PURGE_COMMAND,))}",
            ),
            "a purge pod runs prewarm remove-images, nothing else",
        ),
    )
    return tuple(Validation(f"!variables.purger || ({rule.expression})", rule.message) for rule in rules)


def _own_caches(user: str) -> Guard:
    """Our own ServiceAccount writes plans: it neither writes ImageCaches in people's name nor edits theirs."""
    planned, was_planned = (f"{_label(at, names.LABEL_PLANNED)} == '{names.TRUE}'" for at in ("object", "oldObject"))
    ends = "oldObject.spec.?completion.?ttlSecondsAfterFinished.hasValue()"
    return Guard(
        "plans",
        names.GROUP,
        "imagecaches",
        ("CREATE", "UPDATE", "DELETE"),
        (),
        (
            Validation(f"request.operation != 'CREATE' || {planned}", "prewarm creates planned ImageCaches only"),
            Validation(
                f"request.operation != 'UPDATE' || object.spec == oldObject.spec || {planned} && {was_planned}",
                "prewarm does not change the spec of an ImageCache that it has not planned",
            ),
            Validation(
                f"request.operation != 'DELETE' || {was_planned} || {ends}",
                "prewarm deletes planned ImageCaches, and those with completion.ttlSecondsAfterFinished, only",
            ),
        ),
        user,
    )


def _false_pullers() -> Guard:
    """Pods with our label count against the budgets and are read as evidence: people's own would block pulls."""
    label = names.LABEL_PULLER
    return Guard(
        "labels",
        "",
        "pods",
        ("CREATE", "UPDATE"),
        (),
        (
            Validation(
                f"{_same_as_before(_label('object', label), _label('oldObject', label))} || {_MAY_PLAN}",
                f"only prewarm sets, changes or removes the label {label}",
            ),
        ),
        only_label=label,
    )
