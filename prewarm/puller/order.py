"""In which order do ImageCaches come, where there is not enough for all of them?"""

from prewarm.model.image_caches import ImageCache


def precedence(cache: ImageCache) -> tuple[int, float, float, tuple[str, str]]:
    """Order of caches: higher priority, sooner needed, older, by name."""
    needed = cache.needed_by if cache.needed_by is not None else float("inf")
    return (-cache.priority, needed, cache.created_at, cache.key)
