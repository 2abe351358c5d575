"""CustomResourceDefinitions from the pydantic models: JSON Schema made structural, as the API server asks for.

Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from collections.abc import Mapping

from msgspec import Struct
from pydantic import BaseModel

from prewarm.api import names
from prewarm.api.image_cache import ImageCacheResource
from prewarm.api.node_image import NodeImageResource
from prewarm.api.policy import PolicyResource
from prewarm.model.intents import IMAGE_CACHES, NODE_IMAGES, POLICIES, Json, Manifest, Resource

Schema = dict[str, Json]

_FORBIDDEN = frozenset({"prefixItems", "patternProperties", "propertyNames", "oneOf", "not", "if", "then", "else"})
_BOUNDED_FORMATS = frozenset({"date-time"})


class SchemaError(ValueError):
    """A model cannot be expressed as a bounded structural schema; the message names the place."""


class Column(Struct, frozen=True):
    """One of the columns that `kubectl get` prints; `priority` 1 shows it with `-o wide` only."""

    name: str
    type: str
    path: str
    description: str
    priority: int = 0


class Kind(Struct, frozen=True):
    """A kind as its CustomResourceDefinition declares it."""

    resource: Resource
    model: type[BaseModel]
    short_name: str
    columns: tuple[Column, ...]
    status_subresource: bool = False


_AGE = Column("Age", "date", ".metadata.creationTimestamp", "Time since creation.")

KINDS: tuple[Kind, ...] = (
    Kind(
        IMAGE_CACHES,
        ImageCacheResource,
        "pic",
        (
            Column("Desired", "integer", ".status.desired", "Pairs of image and node that should be there."),
            Column("Active", "integer", ".status.active", "Pairs that are being pulled."),
            Column("Succeeded", "integer", ".status.succeeded", "Pairs that are there."),
            Column("Failed", "integer", ".status.failed", "Pairs whose last attempt failed."),
            _AGE,
            Column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", "Whether all is there.", 1),
            Column("Skipped", "integer", ".status.skipped", "Pairs that are held back.", 1),
            Column("Priority", "integer", ".spec.priority", "Which one pulls first.", 1),
            Column("Workload", "string", r".metadata.annotations.prewarm\.dev/workload", "Planned for.", 1),
        ),
        status_subresource=True,
    ),
    Kind(
        NODE_IMAGES,
        NodeImageResource,
        "pni",
        (
            Column("Images", "integer", ".status.imageCount", "Images that are known to be there."),
            Column("Failures", "integer", ".status.failureCount", "Images that were tried in vain."),
            _AGE,
        ),
    ),
    Kind(
        POLICIES,
        PolicyResource,
        "pwp",
        (
            Column("Mode", "string", ".spec.mode", "Active, Shadow or Off."),
            Column("Rollout", "boolean", ".spec.rollout.enabled", "Whether rollouts are prewarmed."),
            Column("ScaleOut", "boolean", ".spec.scaleOut.enabled", "Whether scale-outs are prewarmed."),
            Column("Headroom", "string", ".spec.scaleOut.headroom", "Replicas ahead of the current ones."),
            Column("Coverage", "number", ".spec.placement.coverage", "Share of the predicted landings.", 1),
            _AGE,
        ),
    ),
)


def custom_resource_definitions() -> tuple[Manifest, ...]:
    """The CustomResourceDefinitions of all kinds.

    Raises:
        SchemaError: if a model is not bounded or cannot be structural.
    """
    return tuple(custom_resource_definition(kind) for kind in KINDS)


def custom_resource_definition(kind: Kind) -> Manifest:
    """The CustomResourceDefinition of one kind."""
    resource = kind.resource
    version: dict[str, Json] = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root(kind.model, resource.kind)},
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    if kind.status_subresource:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [kind.short_name],
                "categories": [names.MANAGED_BY],
            },
            "versions": [version],
        },
    }


def _column(column: Column) -> Schema:
    fields: Schema = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.priority:
        fields["priority"] = column.priority
    return fields


def _root(model: type[BaseModel], where: str) -> Schema:
    schema = structural(model.model_json_schema(by_alias=True, mode="validation"), where)
    properties = schema["properties"]
    if not isinstance(properties, dict):
        raise SchemaError(f"{where}: a kind needs fields")
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **properties,
    }
    return schema


def structural(schema: Mapping[str, Json], where: str) -> Schema:
    """JSON Schema as pydantic writes it, rewritten to a bounded structural schema.

    References are inlined; "or null" is dropped, since an absent field says the same; unions of number and text become
    int-or-string; exclusive bounds of whole numbers become inclusive ones.

    Raises:
        SchemaError: if something is unbounded, recursive or has no structural form; the message names the place.
    """
    definitions = schema.get("$defs", {})
    if not isinstance(definitions, Mapping):
        raise SchemaError(f"{where}: $defs is not an object")
    return _rewrite(schema, definitions, where, ())


def _rewrite(node: Mapping[str, Json], definitions: Mapping[str, Json], where: str, seen: tuple[str, ...]) -> Schema:
    node, seen = _resolve(node, definitions, where, seen)
    result = {key: value for key, value in node.items() if key not in {"title", "discriminator", "examples", "$defs"}}
    if "x-kubernetes-validations" in result:
        result.pop("propertyNames", None)  # a CEL rule beside it bounds the keys
    forbidden = sorted(_FORBIDDEN & result.keys())
    if forbidden:
        raise SchemaError(f"{where}: {', '.join(forbidden)} has no structural form")
    if result.get("additionalProperties") is False:
        del result["additionalProperties"]
    if result.get("default", 0) in (None, ""):
        del result["default"]  # absent says the same
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if isinstance(result.get("description"), str):
        result["description"] = " ".join(str(result["description"]).split())
    _union(result, where)
    _inclusive(result)
    _children(result, definitions, where, seen)
    _check(result, where)
    return {key: result[key] for key in sorted(result, key=_place)}


def _place(key: str) -> tuple[int, str]:
    """The order in which people read a schema: what it is, its bounds, its rules, its children."""
    first = ("description", "type", "format", "enum", "default")
    last = ("required", "items", "additionalProperties", "properties")
    if key in first:
        return (first.index(key), key)
    return (len(first) + 1 + last.index(key), key) if key in last else (len(first), key)


def _resolve(
    node: Mapping[str, Json], definitions: Mapping[str, Json], where: str, seen: tuple[str, ...]
) -> tuple[dict[str, Json], tuple[str, ...]]:
    """Inline $ref, and the one branch that "or null" leaves; what stands beside them wins over what they hold."""
    result = dict(node)
    while True:
        branches = result.get("anyOf")
        if isinstance(branches, list):
            rest = [branch for branch in branches if branch != {"type": "null"}]
            if len(rest) == 1 and isinstance(rest[0], Mapping):
                del result["anyOf"]
                result = {**rest[0], **result}
            elif len(rest) < len(branches):
                result["anyOf"] = rest
        reference = result.pop("$ref", None)
        if reference is None:
            return result, seen
        name = str(reference).removeprefix("#/$defs/")
        target = definitions.get(name)
        if not isinstance(target, Mapping):
            raise SchemaError(f"{where}: {reference} leads nowhere")
        if name in seen:
            raise SchemaError(f"{where}: {name} contains itself, which has no structural form")
        seen = (*seen, name)
        result = {**target, **result}


def _union(result: Schema, where: str) -> None:
    branches = result.pop("anyOf", None)
    if branches is None:
        return
    types = (
        {branch.get("type") for branch in branches if isinstance(branch, Mapping)}
        if isinstance(branches, list)
        else set()
    )
    if types != {"integer", "string"}:
        raise SchemaError(f"{where}: a union of {sorted(map(str, types))} has no structural form")
    result["x-kubernetes-int-or-string"] = True


def _inclusive(result: Schema) -> None:
    for exclusive, inclusive, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        bound = result.get(exclusive)
        if isinstance(bound, bool) or not isinstance(bound, (int, float)):
            continue
        if result.get("type") == "integer":
            del result[exclusive]
            result[inclusive] = bound + step
        else:
            result[inclusive] = bound
            result[exclusive] = True


def _children(result: Schema, definitions: Mapping[str, Json], where: str, seen: tuple[str, ...]) -> None:
    properties = result.get("properties")
    if isinstance(properties, Mapping):
        result["properties"] = {
            name: _rewrite(_schema_at(child, f"{where}.{name}"), definitions, f"{where}.{name}", seen)
            for name, child in properties.items()
        }
    items = result.get("items")
    if items is not None:
        result["items"] = _rewrite(_schema_at(items, f"{where}[]"), definitions, f"{where}[]", seen)
    values = result.get("additionalProperties")
    if values is not None:
        result["additionalProperties"] = _rewrite(_schema_at(values, f"{where}.*"), definitions, f"{where}.*", seen)


def _schema_at(node: Json, where: str) -> Mapping[str, Json]:
    if not isinstance(node, Mapping):
        raise SchemaError(f"{where}: has no type")
    return node


def _check(result: Schema, where: str) -> None:
    """Refuse what is untyped or unbounded: CEL's cost estimate takes an unbounded list for a very long one."""
    if result.get("x-kubernetes-int-or-string") is True:
        if "maxLength" not in result:
            raise SchemaError(f"{where}: a text needs maxLength")
        return
    match result.get("type"):
        case "object" if "additionalProperties" in result and "maxProperties" not in result:
            raise SchemaError(f"{where}: a map needs maxProperties")
        case "object" if "additionalProperties" not in result and "properties" not in result:
            raise SchemaError(f"{where}: an object needs fields")
        case "array" if "maxItems" not in result or "x-kubernetes-list-type" not in result:
            raise SchemaError(f"{where}: a list needs maxItems and x-kubernetes-list-type")
        case "string" if (
            "maxLength" not in result and "enum" not in result and result.get("format") not in _BOUNDED_FORMATS
        ):
            raise SchemaError(f"{where}: a text needs maxLength")
        case "object" | "array" | "string" | "integer" | "number" | "boolean":
            return
        case unknown:
            raise SchemaError(f"{where}: type {unknown} has no structural form")
