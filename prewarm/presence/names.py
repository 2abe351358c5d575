"""Under which spellings is an image found on a node?"""

from functools import lru_cache

from prewarm.model.images import canonical, parse_reference


@lru_cache(maxsize=16384)
def keys(image: str) -> tuple[str, ...]:
    """Spellings under which an image is recorded and looked up, most exact first.

    A reference with tag and digest is resolved by its digest alone (distribution reference.Digested), so it is also
    known by repository and digest.
    """
    exact = canonical(image)
    try:
        reference = parse_reference(image)
    except ValueError:
        return (exact,)
    if reference.tag and reference.digest:
        return (exact, f"{reference.name}@{reference.digest}")
    return (exact,)


@lru_cache(maxsize=16384)
def digest_of(image_id: str) -> str:
    """Manifest digest of a container status' imageID (repository@digest); "" where it names only the image config."""
    _, at, digest = image_id.rpartition("@")
    return digest if at and ":" in digest else ""


@lru_cache(maxsize=16384)
def by_digest(image: str, digest: str) -> str:
    """The spelling by repository and digest of an image whose digest is known; "" if there is none."""
    if not digest:
        return ""
    try:
        return f"{parse_reference(image).name}@{digest}"
    except ValueError:
        return ""


def digest_among(names: tuple[str, ...]) -> str:
    """Manifest digest that the names of one entry of a node's list agree on; "" if none has one."""
    return next((digest for digest in map(digest_of, names) if digest), "")
