"""What did prewarm pull for which ImageCache, and where? Read from the records, anew only where one changed."""

from collections.abc import Iterable, Mapping

from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from prewarm.model.snapshot import ClusterSnapshot

_NOTHING: Mapping[str, tuple[PresentImage, ...]] = {}


class Claims:
    """Our own pulls by namespace/name of the cache, then by node."""

    def __init__(self) -> None:
        self._records: dict[str, NodeImages] = {}
        self._by_cache: dict[str, dict[str, tuple[PresentImage, ...]]] = {}
        self._versions: dict[str, int] = {}

    def update(self, snapshot: ClusterSnapshot) -> None:
        """Take over the records that changed since the last call."""
        for name in [name for name in self._records if name not in snapshot.node_images]:
            self._put(name, self._records.pop(name).images, ())
        for name, record in snapshot.node_images.items():
            before = self._records.get(name)
            if before is not record:
                self._records[name] = record
                self._put(name, before.images if before is not None else (), record.images)

    def of(self, cache: str) -> Mapping[str, tuple[PresentImage, ...]]:
        """The pulls for a cache, by node."""
        return self._by_cache.get(cache, _NOTHING)

    def version(self, cache: str) -> int:
        """Changes whenever the pulls for a cache do."""
        return self._versions.get(cache, 0)

    def _put(self, node: str, before: Iterable[PresentImage], after: Iterable[PresentImage]) -> None:
        old, new = _by_cache(before), _by_cache(after)
        for cache in {*old, *new}:
            entries = new.get(cache)
            if entries == old.get(cache):
                continue
            self._versions[cache] = self._versions.get(cache, 0) + 1
            nodes = self._by_cache.setdefault(cache, {})
            if entries:
                nodes[node] = entries
            else:
                nodes.pop(node, None)
                if not nodes:
                    del self._by_cache[cache]


def _by_cache(entries: Iterable[PresentImage]) -> dict[str, tuple[PresentImage, ...]]:
    found: dict[str, tuple[PresentImage, ...]] = {}
    for entry in entries:
        if entry.evidence is Evidence.OUR_PULL and entry.cache:
            found[entry.cache] = (*found.get(entry.cache, ()), entry)
    return found


def other_names(snapshot: ClusterSnapshot, node_name: str, entry: PresentImage) -> frozenset[str]:
    """Canonical names of the same image on the node: by the node's own list, and by equal digests on the record."""
    names = {entry.image}
    node, record = snapshot.nodes.get(node_name), snapshot.node_images.get(node_name)
    for listed in node.images if node is not None else ():
        listed_names = {canonical(name) for name in listed.names}
        if entry.image in listed_names or (entry.digest and any(n.endswith(entry.digest) for n in listed_names)):
            names |= listed_names
    for known in record.images if record is not None else ():
        if entry.digest and known.digest == entry.digest:
            names.add(known.image)
    return frozenset(names)
