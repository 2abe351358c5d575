"""The API reference as Markdown, from the same schemas as the CustomResourceDefinitions."""

from collections.abc import Iterator, Mapping

from prewarm.api.schema import KINDS, Kind, custom_resource_definition
from prewarm.model.intents import Json


def api_reference() -> str:
    """docs/reference/api.md: each kind, its fields, their bounds and rules."""
    introduction = (
        "# API reference\n\n"
        "Generated from `prewarm/api` by `python -m prewarm.api.generate`. Group `prewarm.dev`, version `v1alpha1`.\n"
        "Use the full resource names, or the short ones: other projects have a kind named ImageCache too.\n"
    )
    return "\n".join([introduction, *(_kind(kind) for kind in KINDS)])


def _kind(kind: Kind) -> str:
    resource = kind.resource
    schema = _schema(kind)
    scope = "namespaced" if resource.namespaced else "cluster-scoped"
    rows = [
        f"| `{path}` | {_type(field)} | {_words(field, required=required)} |"
        for path, field, required in _fields(schema, "")
    ]
    return "\n".join(
        [
            f"## {resource.kind}\n",
            f"`{resource.plural}.{resource.group}`, short name `{kind.short_name}`, {scope}. {schema['description']}\n",
            "| field | type | meaning |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _schema(kind: Kind) -> Mapping[str, Json]:
    node: Json = custom_resource_definition(kind)
    for step in ("spec", "versions", 0, "schema", "openAPIV3Schema"):
        node = node[step]  # type: ignore[index]  # the shape is our own
    return _mapping(node)


def _fields(schema: Mapping[str, Json], path: str) -> Iterator[tuple[str, Mapping[str, Json], bool]]:
    required = schema.get("required", ())
    for name, child in _mapping(schema.get("properties")).items():
        field = _mapping(child)
        where = f"{path}.{name}" if path else name
        if where in {"apiVersion", "kind", "metadata"}:
            continue
        yield where, field, isinstance(required, list) and name in required
        yield from _fields(field, where)
        yield from _fields(_mapping(field.get("items")), f"{where}[]")


def _type(field: Mapping[str, Json]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    match field.get("type"):
        case "array":
            return f"list of {_type(_mapping(field.get('items')))}"
        case "object" if "additionalProperties" in field:
            return f"map of {_type(_mapping(field.get('additionalProperties')))}"
        case "string" if field.get("format") == "date-time":
            return "time"
        case name:
            return str(name)


def _words(field: Mapping[str, Json], *, required: bool) -> str:
    words = [str(field.get("description", "")), "Required." if required else ""]
    values = field.get("enum")
    if isinstance(values, list):
        words.append("One of " + ", ".join(f"`{value}`" for value in values if value) + ".")
    default = field.get("default")
    if default is not None and default != {}:
        words.append(f"Default: `{str(default).lower() if isinstance(default, bool) else default}`.")
    if "minimum" in field and "maximum" in field:
        words.append(f"From {field['minimum']} to {field['maximum']}.")
    if "maxItems" in field:
        words.append(f"At most {field['maxItems']} entries.")
    rules = [*_rules(field), *_rules(_mapping(field.get("items")))]
    words.extend(f"Rule: {rule}." for rule in rules)
    return " ".join(word for word in words if word).replace("|", "\\|")


def _rules(field: Mapping[str, Json]) -> list[str]:
    entries = field.get("x-kubernetes-validations")
    return [str(_mapping(entry).get("message")) for entry in entries] if isinstance(entries, list) else []


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
