"""ImageCaches and NodeImages for people and programs."""

import time
from datetime import UTC, datetime

from prewarm.api.image_cache_status import encode_status
from prewarm.api.plan_annotation import decode_summary
from prewarm.cli.options import OutputFormat
from prewarm.cli.output import console, print_data, table
from prewarm.cli.warming import Progress, progress
from prewarm.model.image_caches import ImageCache
from prewarm.model.intents import Json
from prewarm.model.nodes import NodeImages, PresentImage

_SHOWN_NODES = 100


def print_caches(caches: list[ImageCache], output: OutputFormat) -> None:
    """One row an ImageCache."""
    if output is not OutputFormat.TABLE:
        print_data({"imageCaches": [_cache_data(cache) for cache in caches]}, output)
        return
    if not caches:
        console().print("No ImageCaches.")
        return
    rows = [
        (
            cache.namespace,
            cache.name,
            cache.workload or "-",
            _state(cache),
            f"{cache.status.succeeded}/{cache.status.desired}",
            str(cache.status.active),
            str(cache.status.failed),
            str(cache.status.skipped),
            _age(cache.created_at),
        )
        for cache in caches
    ]
    columns = ("NAMESPACE", "NAME", "WORKLOAD", "STATE", ">THERE", ">PULLING", ">FAILED", ">SKIPPED", ">AGE")
    console().print(table("", columns, rows))


def print_cache(cache: ImageCache, output: OutputFormat) -> None:
    """All about one ImageCache."""
    if output is not OutputFormat.TABLE:
        print_data(_cache_data(cache), output)
        return
    out = console()
    out.print(f"{cache.namespace}/{cache.name}", style="bold", end="")
    out.print(f"  {_state(cache)}, {_age(cache.created_at)} old", markup=False)
    if cache.workload:
        out.print(f"  for {cache.workload}{_why(cache)}", markup=False)
    for condition in cache.status.conditions:
        word = "yes" if condition.status else "no"
        out.print(f"  {condition.type}: {word} ({condition.reason}) {condition.message}", markup=False)
    for entry in cache.lists:
        for image in entry.images:
            out.print(f"  image {image}", markup=False)
        names = entry.node_names
        if names is not None:
            rest = f" and {len(names) - _SHOWN_NODES} more" if len(names) > _SHOWN_NODES else ""
            out.print(f"  on {len(names)} nodes: {', '.join(names[:_SHOWN_NODES])}{rest}", markup=False)
        if entry.node_selector:
            out.print(f"  on nodes with {', '.join(f'{k}={v}' for k, v in entry.node_selector)}", markup=False)
    if cache.status.reasons:
        rows = [(reason, str(count)) for reason, count in cache.status.reasons]
        out.print(table("Not there", ("REASON", ">PAIRS"), rows))
    if cache.status.failures:
        failures = [(f.image, f.node, f.reason, str(f.attempts), f.message) for f in cache.status.failures]
        out.print(table("Failures", ("IMAGE", "NODE", "REASON", ">ATTEMPTS", "MESSAGE"), failures))


def print_node(name: str, found: NodeImages | None, output: OutputFormat) -> None:
    """What prewarm knows to be on a node."""
    images = () if found is None else found.images
    if output is not OutputFormat.TABLE:
        print_data({"node": name, "images": [_image_data(image) for image in images]}, output)
        return
    if not images:
        console().print(f"Nothing is known of node {name}: prewarm pulled nothing there.", markup=False)
        return
    rows = [
        (
            image.image,
            image.evidence.value,
            _age(image.since),
            image.cache or "-",
            "-" if image.pull_seconds is None else f"{image.pull_seconds:.1f} s",
            "-" if image.used_at is None else _age(image.used_at),
        )
        for image in images
    ]
    columns = ("IMAGE", "EVIDENCE", ">SINCE", "IMAGECACHE", ">PULL", ">USED")
    console().print(table("", columns, rows))


def _state(cache: ImageCache) -> str:
    if cache.error:
        return "InvalidSpec"
    state = progress(cache)
    return "Suspended" if cache.suspend and state is not Progress.WARM else state.value


def _why(cache: ImageCache) -> str:
    summary = decode_summary(cache.plan_annotation)
    if summary is None:
        return ""
    return f": {summary.trigger}, {summary.pods} pods to come, predictability {summary.predictability:.0%}"


def _cache_data(cache: ImageCache) -> dict[str, Json]:
    return {
        "namespace": cache.namespace,
        "name": cache.name,
        "workload": cache.workload or None,
        "planned": cache.planned,
        "state": _state(cache),
        "error": cache.error or None,
        "images": [image for entry in cache.lists for image in entry.images],
        "nodes": [name for entry in cache.lists for name in entry.node_names or ()],
        "status": encode_status(cache.status),
    }


def _image_data(image: PresentImage) -> dict[str, Json]:
    return {
        "image": image.image,
        "digest": image.digest or None,
        "evidence": image.evidence.value,
        "since": _time(image.since),
        "sizeBytes": image.size_bytes or None,
        "imageCache": image.cache or None,
        "pullSeconds": image.pull_seconds,
        "usedAt": None if image.used_at is None else _time(image.used_at),
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _age(since: float) -> str:
    """How long ago, as kubectl shortens it."""
    seconds = int(max(0.0, time.time() - since))
    for unit, length, until in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds // length}{unit}"
    return f"{seconds // 86_400}d"
