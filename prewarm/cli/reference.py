"""Writes the reference pages that come from the code: `python -m prewarm.cli.reference [--check]`.

A tool for those who change the project; pages of the API kinds come from `prewarm.api.generate`.
"""

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from prometheus_client import Metric

from prewarm.accounting.waste import WasteReason
from prewarm.api import names
from prewarm.cli.yaml_text import to_yaml
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.mirror import Mirror
from prewarm.controller.metrics import Metrics, watch_reflectors
from prewarm.controller.settings import Settings
from prewarm.model.nodes import Evidence, NodeState
from prewarm.model.outcomes import Outcome
from prewarm.model.plans import RejectReason, SkipReason, Trigger
from prewarm.model.removals import RemovalResult
from prewarm.puller import FailureReason, PurgeReason, WithheldReason, guards

_FOLDER = "docs/reference"
_COMMAND = "python -m prewarm.cli.reference"
_MAX_LABEL_VALUES = 32
_SPELLINGS = frozenset({"MANAGED_BY", "TRUE"})
"""Constants of the names module that are values of labels, named there."""

_REASONS: Sequence[tuple[str, str, type[StrEnum]]] = (
    ("Outcomes", "Label `outcome` of `prewarm_container_starts_total`; field `outcome` of log lines.", Outcome),
    ("Triggers", "Field `trigger` of the annotation `prewarm.dev/plan`, of plans and log lines.", Trigger),
    ("Why a node or image was not chosen", "`skipped` of `prewarm plan` and of log lines.", SkipReason),
    ("Why a pod cannot land on a node", "`rejected` of `prewarm plan` and of log lines.", RejectReason),
    ("Why a pull failed", "`status.failures[].reason` and `status.reasons` of an ImageCache.", FailureReason),
    ("Why a node takes no pull", "`status.reasons` of an ImageCache, for skipped pairs.", NodeState),
    ("Why a pull waits", "Log line `pulls withheld`; `NodeNotFound` also in `status.reasons`.", WithheldReason),
    ("How removals stand", "Condition `Purged` of an ImageCache; Events with `Purge` before it.", PurgeReason),
    (
        "What becomes of an image that is to be removed",
        "Message of the condition `Purged`; `status.images[].stays` of a NodeImage.",
        RemovalResult,
    ),
    ("How prewarm knows that an image is on a node", "`status.images[].evidence` of a NodeImage.", Evidence),
    ("Why pulled bytes count as wasted", "Log line `pull wasted`.", WasteReason),
)


def reference_files() -> Mapping[str, str]:
    """Contents of the pages, by path from the project's root."""
    return {
        f"{_FOLDER}/settings.md": settings_reference(),
        f"{_FOLDER}/metrics.md": metrics_reference(),
        f"{_FOLDER}/names.md": names_reference(),
        f"{_FOLDER}/reasons.md": reasons_reference(),
        f"{_FOLDER}/cli.md": cli_reference(),
        f"{_FOLDER}/admission.md": admission_reference(),
        **chart_policies(),
    }


def chart_policies() -> Mapping[str, str]:
    """The ValidatingAdmissionPolicies as the chart reads them; it puts the release's names in."""
    header = f"# {_origin('prewarm/puller/guards.py')}"
    return {
        f"charts/prewarm/files/admission/{guard.suffix}.yaml": header + to_yaml(guards.policy_manifest(guard))
        for guard in guards.guards()
    }


def admission_reference() -> str:
    """Every ValidatingAdmissionPolicy with what it refuses, in words and in CEL."""
    parts = []
    for guard in guards.guards(purging=True):
        who = f"Requests of `{guard.only_user}`" if guard.only_user else "All requests"
        where = f" with the label `{guard.only_label}`" if guard.only_label else ""
        resource = f"{guard.resource}.{guard.group}" if guard.group else guard.resource
        parts += [
            f"## {guards.RELEASE}-{guard.suffix}\n",
            f"{who} to {', '.join(guard.operations)} `{resource}`{where}.\n",
            _table(("what is refused", "unless (CEL)"), ((v.message, f"`{v.expression}`") for v in guard.validations)),
        ]
        if guard.variables:
            parts.append(_table(("variable", "CEL"), ((name, f"`{cel}`") for name, cel in guard.variables)))
    return _page(
        "Admission policies",
        "prewarm/puller/guards.py",
        "ValidatingAdmissionPolicies (admissionregistration.k8s.io/v1) of the chart and of `deploy/prewarm.yaml`, "
        "printed by `prewarm admission-policies`. [Security](../security.md) says why they are there. Shown with "
        "purging switched on, for the ServiceAccount `prewarm` in `prewarm-system`.",
        *parts,
    )


def settings_reference() -> str:
    """Every setting of the controller with its variable, bounds and default."""
    prefix = Settings.model_config.get("env_prefix", "")
    schema = Settings.model_json_schema()
    definitions = schema.get("$defs", {})
    rows = []
    for name, field in schema["properties"].items():
        default = field.get("default")
        shown = "none" if default is None else f"`{_quoted(default)}`"
        rows.append((f"`{(prefix + name).upper()}`", shown, _kind(field, definitions), field["description"]))
    return _page(
        "Settings",
        "prewarm/controller/settings.py",
        "The controller reads environment variables; at its start it names those with the prefix that are no setting. "
        "In the chart, `settings.clusterPulls` is PREWARM_CLUSTER_PULLS, "
        "and so on. Durations are in seconds. A value out of bounds ends the start with one line that names it.",
        _table(("variable", "default", "values", "meaning"), rows),
    )


def metrics_reference() -> str:
    """Every series of the controller with its labels."""
    metrics = Metrics(version="")
    watch_reflectors(metrics, Mirror(Client(Connection("http://localhost"))))
    families = sorted(
        (family for family in metrics.registry.collect() if family.name.startswith("prewarm_")),
        key=lambda family: family.name,
    )
    rows = [(f"`{_series(family)}`", family.type, _labels(family), family.documentation) for family in families]
    return _page(
        "Metrics",
        "prewarm/controller/metrics.py",
        "Served at `/metrics`, beside `process_*` and `python_*` of the client library. No series carries an image, "
        "pod, digest or node. With `PREWARM_WORKLOAD_METRICS` container starts also carry `namespace` and `workload`. "
        "Only the instance that holds the lease judges, plans and pulls: sum over instances.",
        _table(("series", "type", "labels", "meaning"), rows),
    )


def names_reference() -> str:
    """Annotations, labels and object names."""
    documented = attribute_docs(inspect.getsource(names))
    groups: dict[str, list[tuple[str, str]]] = {"ANNOTATION": [], "LABEL": [], "": []}
    for name, value in vars(names).items():
        if name in documented and isinstance(value, str) and name not in _SPELLINGS:
            kind = name.partition("_")[0]
            groups[kind if kind in groups else ""].append((f"`{value}`", documented[name]))
    return _page(
        "Names",
        "prewarm/api/names.py",
        "What prewarm reads from objects and writes on its own. It writes none of it on a workload.",
        "## Annotations\n",
        _table(("annotation", "meaning"), groups["ANNOTATION"]),
        "## Labels\n",
        _table(("label", "meaning"), groups["LABEL"]),
        "## Objects and values\n",
        _table(("name", "meaning"), groups[""]),
    )


def reasons_reference() -> str:
    """Every closed set of reasons.

    Raises:
        ValueError: a member lacks its words.
    """
    parts = []
    for title, where, reasons in _REASONS:
        documented = attribute_docs(inspect.getsource(reasons), reasons.__name__)
        missing = [member.name for member in reasons if member.name not in documented]
        if missing:
            place = f"{reasons.__module__}.{reasons.__name__}"
            raise ValueError(f"{place}: write a docstring below {', '.join(missing)}")
        rows = [(f"`{member.value}`", documented[member.name]) for member in reasons]
        parts += [f"## {title}\n", f"{where}\n", _table(("reason", "meaning"), rows)]
    return _page(
        "Reasons and outcomes", "the enums of prewarm", "Each node and image that is not pulled says why.", *parts
    )


def cli_reference() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    import typer.cli
    from typer.main import get_command

    from prewarm.cli.app import app

    command = get_command(app)
    context = typer.Context(command, info_name="prewarm")
    text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="prewarm", title="Command line")
    heading, _, rest = text.partition("\n")
    return f"{heading}\n\n{_origin('prewarm/cli')}\n{rest.strip()}\n"


def attribute_docs(source: str, class_name: str = "") -> dict[str, str]:
    """Docstrings below assignments of a module, or of a class in it, by name."""
    body: Sequence[ast.stmt] = ast.parse(source).body
    if class_name:
        body = next(n.body for n in body if isinstance(n, ast.ClassDef) and n.name == class_name)
    documented = {}
    for statement, following in pairwise(body):
        match statement, following:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                documented[name] = " ".join(words.split())
            case _:
                pass
    return documented


def _page(title: str, source: str, introduction: str, *parts: str) -> str:
    return "\n".join([f"# {title}\n", _origin(source), f"{introduction}\n", *parts])


def _origin(source: str) -> str:
    return f"Generated from {source} by `{_COMMAND}`: change the source, not this page.\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _kind(field: Mapping[str, object], definitions: Mapping[str, Mapping[str, object]]) -> str:
    """The values that a setting takes, in words."""
    choices = field.get("anyOf")
    if isinstance(choices, list):
        return " or ".join(_kind(choice, definitions) for choice in choices if choice.get("type") != "null")
    reference = field.get("$ref")
    if isinstance(reference, str):
        values = definitions[reference.rpartition("/")[2]].get("enum")
        return ", ".join(f"`{value}`" for value in values) if isinstance(values, list) else reference
    words = str(field.get("format") or field.get("type"))
    if "minimum" in field and "maximum" in field:
        return f"{words}, {_quoted(field['minimum'])} to {_quoted(field['maximum'])}"
    return words


def _series(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> str:
    values: dict[str, list[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            if label != "le" and value not in values.setdefault(label, []):
                values[label].append(value)
    return ", ".join(_label(name, found) for name, found in values.items())


def _label(name: str, values: Sequence[str]) -> str:
    known = [value for value in values if value]
    if not known or len(known) > _MAX_LABEL_VALUES:
        return f"`{name}`"
    return f"`{name}`: " + ", ".join(f"`{value}`" for value in known)


def drifted(root: Path) -> Iterator[str]:
    """Pages below the root that differ from what the code says."""
    for path, content in reference_files().items():
        page = root / path
        if not page.is_file() or page.read_text(encoding="utf-8") != content:
            yield path


def main(arguments: Sequence[str], root: Path | None = None) -> int:
    """Write the pages, or with --check say which ones differ; exit code 0, 1 (drift) or 2 (usage)."""
    root = root or Path(__file__).resolve().parents[2]
    if list(arguments) == ["--check"]:
        wrong = list(drifted(root))
        for path in wrong:
            sys.stderr.write(f"{path} differs from the code: run {_COMMAND}\n")
        return 1 if wrong else 0
    if arguments:
        sys.stderr.write(f"usage: {_COMMAND} [--check]\n")
        return 2
    for path, content in reference_files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
