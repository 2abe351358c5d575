"""docs/reference/rbac.md: every right that the chart grants, with its reason; `python -m e2e.plain_yaml` writes it."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

PAGE = "docs/reference/rbac.md"

_REASONS: Mapping[tuple[str, str, str], str] = {
    ("ClusterRole", "nodes", "read"): "size, labels, taints, state and images of nodes",
    ("ClusterRole", "namespaces", "read"): "labels that opt namespaces in, and by which a policy's limits select them",
    ("ClusterRole", "pods", "read"): "where pods run, and which wait for images",
    ("ClusterRole", "pods", "write"): (
        "puller pods are created and removed; the [admission policy](admission.md#prewarm-pullers) lets nothing else "
        "through"
    ),
    ("ClusterRole", "services", "read"): "the scheduler spreads the pods of a Service by default",
    ("ClusterRole", "persistentvolumeclaims", "read"): "which volumes pods are bound to",
    ("ClusterRole", "persistentvolumes", "read"): "to which nodes and zones those volumes keep their pods",
    ("ClusterRole", "resourcequotas", "read"): "pulls leave the quota that the workloads of a namespace need",
    ("ClusterRole", "limitranges", "read"): "requests and limits of puller pods stay within what a namespace allows",
    ("ClusterRole", "events", "read"): "what kubelets say of images",
    ("ClusterRole", "events", "write"): "Events for people, counted up instead of repeated",
    ("ClusterRole", "deployments.apps", "read"): "templates and rollouts",
    ("ClusterRole", "replicasets.apps", "read"): "which pods belong to which Deployment and revision",
    ("ClusterRole", "statefulsets.apps", "read"): "templates and rollouts",
    ("ClusterRole", "daemonsets.apps", "read"): "templates and rollouts",
    ("ClusterRole", "cronjobs.batch", "read"): "templates, and when the next run comes",
    ("ClusterRole", "jobs.batch", "read"): "which pods belong to which CronJob, and how many are to come",
    ("ClusterRole", "controllerrevisions.apps", "read"): (
        "whether OpenKruise changes pods in place, and pre-downloads itself; read only where its kinds are installed"
    ),
    ("ClusterRole", "clonesets.apps.kruise.io", "read"): "templates and rollouts, where OpenKruise is installed",
    ("ClusterRole", "statefulsets.apps.kruise.io", "read"): "templates and rollouts, where OpenKruise is installed",
    ("ClusterRole", "daemonsets.apps.kruise.io", "read"): "templates and rollouts, where OpenKruise is installed",
    ("ClusterRole", "rollouts.argoproj.io", "read"): "templates and steps, where Argo Rollouts is installed",
    ("ClusterRole", "canaries.flagger.app", "read"): "which images are on trial, where Flagger is installed",
    ("ClusterRole", "imagepolicies.image.toolkit.fluxcd.io", "read"): (
        "which images Flux will write into manifests, where it is installed"
    ),
    ("ClusterRole", "horizontalpodautoscalers.autoscaling", "read"): "scale-outs to come",
    ("ClusterRole", "csinodes.storage.k8s.io", "read"): "how many volumes nodes attach",
    ("ClusterRole", "priorityclasses.scheduling.k8s.io", "read"): "whose pods the scheduler takes away for others",
    ("ClusterRole", "poddisruptionbudgets.policy", "read"): "which pods it takes away last",
    ("ClusterRole", "prewarmpolicies.prewarm.dev", "read"): "who is covered, how far, and within which limits",
    ("ClusterRole", "imagecaches.prewarm.dev", "read"): "what is asked for",
    ("ClusterRole", "imagecaches.prewarm.dev", "write"): (
        "plans; the [admission policy](admission.md#prewarm-plans) keeps it from changing others'. `delete` also "
        "ends those with `ttlSecondsAfterFinished`, `patch` also removes request annotations that were acted on"
    ),
    ("ClusterRole", "imagecaches.prewarm.dev", "mark"): (
        "may mark ImageCaches as planned; the [admission policy](admission.md#prewarm-imagecaches) asks for it, no "
        "request has this verb"
    ),
    ("ClusterRole", "imagecaches/status.prewarm.dev", "write"): "counts, conditions, failures",
    ("ClusterRole", "nodeimages.prewarm.dev", "read"): "what is known of the images on nodes, over restarts",
    ("ClusterRole", "nodeimages.prewarm.dev", "write"): "what is learnt of the images on nodes",
    ("Role", "leases.coordination.k8s.io", "read"): "which instance is active",
    ("Role", "leases.coordination.k8s.io", "write"): "to be the active instance",
    ("Role", "configmaps", "read"): "what was learnt before a restart",
    ("Role", "configmaps", "write"): "what was learnt",
}
_READ = ("get", "list", "watch")
_MARK = "plan"
_TITLES = {"ClusterRole": "In the whole cluster", "Role": "In the controller's namespace"}


class Right(Struct, frozen=True):
    """What one rule grants on one resource."""

    role: str
    """ClusterRole or Role."""
    resource: str
    """With its group, as imagecaches.prewarm.dev."""
    names: tuple[str, ...]
    """Of the objects; empty for all."""
    verbs: tuple[str, ...]


def rights(objects: Sequence[Mapping[str, object]]) -> Iterator[Right]:
    """What the roles among some objects grant, in their order."""
    for manifest in objects:
        kind, rules = str(manifest["kind"]), manifest.get("rules")
        if kind not in _TITLES or not isinstance(rules, list):
            continue
        for rule in rules:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    name = f"{resource}.{group}" if group else resource
                    yield Right(kind, name, tuple(rule.get("resourceNames", ())), tuple(rule["verbs"]))


def rights_page(objects: Sequence[Mapping[str, object]]) -> str:
    """The page as far as the chart's default values go.

    Raises:
        ValueError: a right has no reason, or a reason no right.
    """
    rows: dict[tuple[str, str, tuple[str, ...]], dict[str, list[str]]] = {}
    for right in rights(objects):
        uses = rows.setdefault((right.role, right.resource, right.names), {})
        for verb in right.verbs:
            # Reading an Event is part of counting it up.
            event = right.resource == "events" and verb == "get"
            use = "mark" if verb == _MARK else "read" if verb in _READ and not event else "write"
            uses.setdefault(use, []).append(verb)
    given = {(role, resource, use) for (role, resource, _), uses in rows.items() for use in uses}
    wrong = sorted(given.symmetric_difference(_REASONS) - _OPTIONAL)
    if wrong:
        raise ValueError(f"e2e/rights.py and charts/prewarm/templates/rbac.yaml differ on {wrong}")
    parts = [_INTRODUCTION]
    for role, title in _TITLES.items():
        parts.append(f"\n## {title}\n\n| resource | verbs | why |\n| --- | --- | --- |\n")
        parts += [
            f"| `{resource}`{_named(names)} | {', '.join(verbs)} | {_REASONS[role, resource, use]} |\n"
            for (of, resource, names), uses in sorted(rows.items())
            if of == role
            for use, verbs in uses.items()
        ]
    return "".join(parts)


_OPTIONAL = {("ClusterRole", name, "read") for name in ("resourcequotas", "limitranges")}


def _named(names: tuple[str, ...]) -> str:
    return f" named {', '.join(f'`{name}`' for name in names)}" if names else ""


_INTRODUCTION = """\
# Rights

Generated from charts/prewarm by `python -m e2e.plain_yaml`: change the chart and `e2e/rights.py`, not this page.

What the chart grants to the controller's ServiceAccount with its default values, rule by rule. `list` and `watch` are
what its reflectors do; `create` and `patch` together are server-side apply.
"""
_END_OF_GATES = (
    "the same, for the hook that ends the gate when prewarm is uninstalled or `gate.enabled` switched off; it lasts as "
    "long as the hook. **By default, too**, after every rollback to a release without the gate, whether or not there "
    "ever was one: leave it out with `gate.rollbackHook=false`"
)
_END = "`gate.enabled`, `gate.rollbackHook`"
_SWITCHED: Mapping[tuple[str, str], tuple[str, str]] = {
    ("prewarm-gates", "deployments.apps"): ("`gate.enabled`", "a held rollout is let go, and nothing else"),
    ("prewarm-gates", "statefulsets.apps"): ("`gate.enabled`", "a held rollout is let go, and nothing else"),
    ("prewarm-gates-end", "deployments.apps"): (_END, _END_OF_GATES),
    ("prewarm-gates-end", "statefulsets.apps"): (_END, _END_OF_GATES),
    ("prewarm-gates-end", "mutatingadmissionpolicybindings.admissionregistration.k8s.io"): (
        _END,
        "the same hook: those named `prewarm-gate-deployments` and `prewarm-gate-statefulsets`",
    ),
    ("prewarm-steer", "nodes"): ("`steer.enabled`", "labels under `steer.prewarm.dev/`, and nothing else"),
    ("prewarm-steer-expiry", "nodes"): (
        "`steer.enabled`",
        "the same, for the CronJob that takes away what nobody renews; its Role may get the ConfigMap `prewarm-steer`",
    ),
    ("prewarm-steer-cleanup", "nodes"): (
        "`steer.enabled`",
        "the same, for the hook that takes them away when prewarm is uninstalled; it lasts as long as the hook",
    ),
}
"""By ClusterRole and resource: the values that switch it on, and why."""


def switched_rights(objects: Sequence[Mapping[str, object]]) -> str:
    """The end of the page: ClusterRoles that come with values which are off by default.

    Raises:
        ValueError: a role has no reason, or a reason no role.
    """
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for manifest in objects:
        metadata = manifest["metadata"]
        name = metadata["name"] if isinstance(metadata, Mapping) else ""
        if manifest["kind"] == "ClusterRole" and name != "prewarm":
            rows.update({(name, right.resource): right.verbs for right in rights([manifest])})
    if rows.keys() != _SWITCHED.keys():
        raise ValueError(f"e2e/rights.py and the chart differ on {sorted(rows.keys() ^ _SWITCHED.keys())}")
    lines = [
        f"| {_SWITCHED[key][0]} | `{key[1]}` | {', '.join(verbs)} | {_SWITCHED[key][1]} |\n"
        for key, verbs in sorted(rows.items())
    ]
    return "".join([_SWITCHED_INTRODUCTION, *lines, _CONCLUSION])


_SWITCHED_INTRODUCTION = """
## With values that are off by default

An admission policy comes with each, and binds what is written there; but not after a rollback to a release without the
gate. `gate.rollbackHook` is on by default: the rights of its hook exist only while that runs, and no policy binds them.
With `steer.enabled` the Role names the ConfigMap `prewarm-steer`, too.

| value | resource | verbs | why |
| --- | --- | --- | --- |
"""
_CONCLUSION = """
There is no right on Secrets or ServiceAccounts, none to write Services or PrewarmPolicies, by default none to write
nodes, and none to write workloads but while the hook of a rollback runs, none to change a pod, to enter one (`exec`,
`attach`, `portforward`), or to act as somebody else.
"""
