"""Objects in a text: YAML or JSON, one or many documents, lists taken apart, each with its line."""

import json
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn

import yaml
from msgspec import Struct

from prewarm.api.fields import mapping, text

if TYPE_CHECKING:
    from yaml import SafeLoader as _YamlLoader
else:
    # libyaml's parser reads the lists of a large cluster in seconds where the Python one takes minutes.
    _YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MERGE = "tag:yaml.org,2002:merge"


class DocumentError(ValueError):
    """A text is no YAML or JSON; the message names the source and, where it is known, the line."""


class Document(Struct, frozen=True):
    """One object of a text."""

    source: str
    line: int
    """Where it begins, counted from 1; an item of a JSON list has the line of the list."""
    content: Mapping[str, object]

    @property
    def kind(self) -> str:
        """Its kind; "" without one."""
        return text(self.content.get("kind"))

    @property
    def api_version(self) -> str:
        """Its apiVersion; "" without one."""
        return text(self.content.get("apiVersion"))

    @property
    def title(self) -> str:
        """Source, line, kind, namespace and name, for people."""
        metadata = mapping(self.content.get("metadata"))
        name = text(metadata.get("name")) or text(metadata.get("generateName")) or "without name"
        namespace = text(metadata.get("namespace"))
        return f"{self.source}:{self.line}: {self.kind or 'object'} {f'{namespace}/{name}' if namespace else name}"


def documents(content: str, source: str) -> list[Document]:
    """All objects of a text; lists (v1 List, ImageCacheList and the like) are taken apart, empty documents left out.

    Args:
        content: YAML or JSON.
        source: how to name the text in messages, such as its file.

    Raises:
        DocumentError: if it is neither, if a key stands twice in a mapping, or if a document is no object.
    """
    if content.lstrip().startswith("{"):
        try:
            whole: object = json.loads(content, object_pairs_hook=_unique)
        except RecursionError:
            raise DocumentError(f"{source}: nested too deeply to be read") from None
        except json.JSONDecodeError:
            pass  # several JSON documents, or YAML in flow style: the YAML parser tells, with its line
        except ValueError as error:
            raise DocumentError(f"{source}: {error}") from None
        else:
            return list(_objects(whole, source, 1, {}))
    return list(_yaml_documents(content, source))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"key {twice!r} stands twice in an object")
    return found


class _Loader(_YamlLoader):
    """Refuses a key that stands twice: YAML would drop the first value without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} stands twice in a mapping", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_documents(content: str, source: str) -> Iterator[Document]:
    line = 1
    try:
        loader = _Loader(content)
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            line = node.start_mark.line + 1
            lines = _item_lines(node)
            yield from _objects(loader.construct_document(node), source, line, lines)
    except yaml.YAMLError as error:
        _refuse(error, content, source, line)
    except RecursionError:
        raise DocumentError(f"{source}:{line}: nested too deeply to be read") from None
    except DocumentError:
        raise
    except ValueError as error:  # a value that looks like a date and is none
        raise DocumentError(f"{source}:{line}: {error}") from None


def _item_lines(node: yaml.Node) -> dict[int, int]:
    """Lines of the entries of `items`, by their index."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == "items" and isinstance(value, yaml.SequenceNode):
            return {index: item.start_mark.line + 1 for index, item in enumerate(value.value)}
    return {}


def _refuse(error: yaml.YAMLError, content: str, source: str, line: int) -> NoReturn:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = line if mark is None else mark.line + 1
        what = error.problem or error.context or "is no YAML"
    elif isinstance(error, yaml.reader.ReaderError):
        line = content.count("\n", 0, error.position) + 1
        what = error.reason
    else:
        what = str(error)
    raise DocumentError(f"{source}:{line}: {' '.join(what.split())}") from None


def _objects(found: object, source: str, line: int, lines: Mapping[int, int]) -> Iterator[Document]:
    if found is None:
        return
    if not isinstance(found, Mapping):
        raise DocumentError(f"{source}:{line}: a manifest is an object with apiVersion, kind and spec")
    kind, items = found.get("kind"), found.get("items")
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
        yield Document(source, line, found)
        return
    # Items of a typed list, unlike those of kubectl's List, need not repeat what they are.
    inherited = {} if kind == "List" else {"apiVersion": found.get("apiVersion"), "kind": kind.removesuffix("List")}
    for index, item in enumerate(items):
        where = lines.get(index, line)
        if not isinstance(item, Mapping):
            raise DocumentError(f"{source}:{where}: items[{index}] is no object")
        yield from _objects({**inherited, **item}, source, where, {})
