"""ImageCaches and NodeImages for people and programs."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prewarm.api.image_cache_status import encode_status
from prewarm.api.plan_annotation import decode_summary
from prewarm.cli.output import table
from prewarm.cli.status_source import Seen, Target
from prewarm.cli.warming import Progress, progress
from prewarm.model.image_caches import Completion, Condition, ImageCache, ImageList, PullerForm
from prewarm.model.intents import Json
from prewarm.model.nodes import FailedPull, NodeImages, PresentImage
from prewarm.model.selectors import LabelSelector, Requirement

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN_NODES = 100
_BAR = 30
"""Characters of the progress bar."""
_FORMS = {
    None: "as the policy or the controller is set (Container, unless told otherwise)",
    PullerForm.CONTAINER: "Container: a static binary runs in each image",
    PullerForm.VOLUME: "Volume: each image is mounted",
}


def view(target: Target, seen: Seen) -> "RenderableType":
    """What was found, for people."""
    if target.node:
        return _node_view(target.node, seen)
    if target.cache:
        if not seen.caches:
            from rich.text import Text

            return Text(f"There is no ImageCache {target.namespace}/{target.cache}.")
        return _cache_view(seen.caches[0], seen.at)
    return _caches_view(seen.caches, seen.at)


def data(target: Target, seen: Seen) -> Json:
    """What was found, for programs."""
    if target.node:
        return _node_data(target.node, seen)
    if target.cache:
        return _cache_data(seen.caches[0]) if seen.caches else None
    return {"imageCaches": [_cache_data(cache) for cache in seen.caches]}


def _caches_view(caches: Sequence[ImageCache], now: float) -> "RenderableType":
    """One row an ImageCache; names as kubectl has them in its columns."""
    if not caches:
        return "No ImageCaches."
    planned = any(cache.workload for cache in caches)
    rows = []
    for cache in caches:
        status = cache.status
        counts = (status.desired, status.active, status.succeeded, status.failed, status.skipped)
        row = (cache.namespace, cache.name, *map(str, counts), _state(cache), _ago(cache.created_at, now))
        rows.append((*row, cache.workload or "-") if planned else row)
    columns = ("NAMESPACE", "NAME", ">DESIRED", ">ACTIVE", ">SUCCEEDED", ">FAILED", ">SKIPPED", "READY", ">AGE")
    return table("", (*columns, "WORKLOAD") if planned else columns, rows)


def _cache_view(cache: ImageCache, now: float) -> "RenderableType":
    """All about one ImageCache."""
    from rich.console import Group
    from rich.text import Text

    status = cache.status
    title = Text.assemble((f"{cache.namespace}/{cache.name}", "bold"), f"  {_state(cache)}, ")
    lines = [title.append(f"{_ago(cache.created_at, now)} old")]
    if cache.workload:
        lines.append(Text(f"  for {cache.workload}{_why(cache)}"))
    lines += [Text(f"  {_condition(condition, now)}") for condition in status.conditions]
    lines += [Text(f"  {line}") for line in (*_course(cache, now), *_entries(cache))]
    parts: list[RenderableType] = list(lines)
    if status.reasons:
        parts.append(table("Not there", ("REASON", ">PAIRS"), [(reason, str(n)) for reason, n in status.reasons]))
    if status.failures:
        columns = ("IMAGE", "NODE", "REASON", ">ATTEMPTS", ">AGO", "MESSAGE")
        failures = [(f.image, f.node, f.reason, str(f.attempts), _ago(f.at, now), f.message) for f in status.failures]
        more = f", {len(failures)} of {status.failed}" if status.failed > len(failures) else ""
        parts.append(table(f"Failures{more}", columns, failures))
    return Group(*parts)


def _condition(condition: Condition, now: float) -> str:
    word = "yes" if condition.status else "no"
    return f"{condition.type}: {word} ({condition.reason}) {condition.message}, since {_ago(condition.since, now)}"


def _course(cache: ImageCache, now: float) -> list[str]:
    """How far it is, how it pulls, and when it was or will be looked after."""
    status = cache.status
    lines = []
    wanted = status.desired - status.skipped
    if wanted > 0:
        done = _BAR * status.succeeded // wanted
        lines.append(f"progress: [{'#' * done}{'.' * (_BAR - done)}] {status.succeeded} of {wanted}")
    lines.append(f"puller: {_form(cache)}")
    if cache.completion != Completion():
        lines.append(f"completion: {_completion(cache.completion)}")
    if cache.schedule is not None:
        lines.append(f"schedule: {cache.schedule.cron} ({cache.schedule.time_zone})")
    if cache.hold_seconds is not None:
        lines.append(f"hold: {_length(cache.hold_seconds)} after each pull")
    if status.refreshed_at is not None:
        lines.append(f"last refresh: {_ago(status.refreshed_at, now)} ago")
    return lines


def _used_form(cache: ImageCache) -> PullerForm | None:
    """The form that the controller pulls in on the cache's nodes; None if it is not known, or not the same on all."""
    if not cache.status.observed_generation:
        return None
    note = next((condition for condition in cache.status.conditions if condition.type == "VolumeForm"), None)
    if note is None:
        # Without the condition nothing is to be mounted: the cache does not ask for it, nor a policy or the setting.
        return None if cache.puller_form is PullerForm.VOLUME else PullerForm.CONTAINER
    if note.status:
        return PullerForm.VOLUME
    return PullerForm.CONTAINER if note.reason == "Nowhere" else None


def _form(cache: ImageCache) -> str:
    """In which form images are pulled, and which one is asked for where that is another."""
    used, asked = _used_form(cache), cache.puller_form
    if used is None:
        seen = cache.status.observed_generation and asked is not PullerForm.CONTAINER
        return "Volume where the node can, else Container" if seen or asked is PullerForm.VOLUME else _FORMS[asked]
    if asked is None:
        return f"{_FORMS[used]}; as the policy or the controller is set"
    return _FORMS[used] if used is asked else f"{_FORMS[used]}; {asked.value} is asked for, and no node can"


def _completion(completion: Completion) -> str:
    words = "Once" if completion.once else "Continuous"
    if completion.deadline_seconds is not None:
        words += f", ends after {_length(completion.deadline_seconds)}"
    if completion.ttl_seconds is not None:
        words += f", deleted {_length(completion.ttl_seconds)} after its end"
    return words


def _entries(cache: ImageCache) -> list[str]:
    lines = []
    for entry in cache.lists:
        lines += [f"image {image}" for image in entry.images] or ["no image"]
        lines.append(f"  on {_nodes(entry)}")
    return lines


def _nodes(entry: ImageList) -> str:
    """Which nodes an entry means, in words."""
    words = []
    names = entry.node_names
    if names is not None:
        rest = f" and {len(names) - _SHOWN_NODES} more" if len(names) > _SHOWN_NODES else ""
        words.append(f"{len(names)} {'node' if len(names) == 1 else 'nodes'}: {', '.join(names[:_SHOWN_NODES])}{rest}")
    if entry.node_selector:
        words.append(f"nodes with {', '.join(f'{key}={value}' for key, value in entry.node_selector)}")
    if entry.node_selector_terms:
        terms = (", ".join(map(_requirement, term.match_expressions)) for term in entry.node_selector_terms)
        words.append(f"nodes with {' or '.join(terms)}")
    if entry.pod_selector is not None:
        words.append(f"nodes of pods {_selector(entry.pod_selector)}")
    return "; ".join(words) or "every node that takes ordinary pods"


def _selector(selector: LabelSelector) -> str:
    labels = [f"{key}={value}" for key, value in selector.match_labels]
    return ", ".join((*labels, *map(_requirement, selector.match_expressions))) or "with any labels"


def _requirement(requirement: Requirement) -> str:
    values = f" ({', '.join(requirement.values)})" if requirement.values else ""
    return f"{requirement.key} {requirement.operator.value}{values}"


def _node_view(name: str, seen: Seen) -> "RenderableType":
    """What prewarm knows to be on a node, how, and what it tried in vain."""
    from rich.console import Group
    from rich.text import Text

    found = seen.node
    if found is None or not (found.images or found.failures):
        return Text(f"Nothing is known of node {name}: prewarm pulled nothing there.")
    parts: list[RenderableType] = []
    if found.images:
        columns = ("IMAGE", "EVIDENCE", ">SINCE", ">HELD FOR", "IMAGECACHE", ">PULL", ">USED")
        parts.append(table("", columns, [_image_row(image, seen) for image in found.images]))
    if found.failures:
        rows = [
            (f.image, f.reason, str(f.attempts), _ago(f.at, seen.at), f.cache or "-", f.message) for f in found.failures
        ]
        parts.append(table("Failed pulls", ("IMAGE", "REASON", ">ATTEMPTS", ">AGO", "IMAGECACHE", "MESSAGE"), rows))
    return Group(*parts)


def _image_row(image: PresentImage, seen: Seen) -> tuple[str, ...]:
    until = image.held_until
    return (
        image.image,
        image.evidence.value,
        _ago(image.since, seen.at),
        "-" if until is None or until <= seen.at else _length(until - seen.at),
        image.cache or "-",
        "-" if image.pull_seconds is None else f"{image.pull_seconds:.1f} s",
        "-" if image.used_at is None else _ago(image.used_at, seen.at),
    )


def _state(cache: ImageCache) -> str:
    """Reason of the Ready condition, unless something else says more."""
    state = _progress(cache)
    if state in {"InvalidSpec", "Suspended", Progress.UNSEEN}:
        return state
    return next((condition.reason for condition in cache.status.conditions if condition.type == "Ready"), state)


def _progress(cache: ImageCache) -> str:
    """How far it is, in a word that does not depend on why."""
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
        "state": _progress(cache),
        "error": cache.error or None,
        "images": [image for entry in cache.lists for image in entry.images],
        "nodes": [name for entry in cache.lists for name in entry.node_names or ()],
        "pullerForm": None if cache.puller_form is None else cache.puller_form.value,
        "pullerFormUsed": None if (used := _used_form(cache)) is None else used.value,
        "status": encode_status(cache.status),
    }


def _node_data(name: str, seen: Seen) -> dict[str, Json]:
    found = seen.node or NodeImages(name, "", "")
    return {
        "node": name,
        "images": [_image_data(image) for image in found.images],
        "failures": [_failure_data(failure) for failure in found.failures],
    }


def _image_data(image: PresentImage) -> dict[str, Json]:
    return {
        "image": image.image,
        "digest": image.digest or None,
        "evidence": image.evidence.value,
        "since": _time(image.since),
        "heldUntil": _time(image.held_until),
        "sizeBytes": image.size_bytes or None,
        "imageCache": image.cache or None,
        "pullSeconds": image.pull_seconds,
        "usedAt": _time(image.used_at),
    }


def _failure_data(failure: FailedPull) -> dict[str, Json]:
    return {
        "image": failure.image,
        "reason": failure.reason,
        "message": failure.message,
        "attempts": failure.attempts,
        "at": _time(failure.at),
        "imageCache": failure.cache or None,
    }


def _time(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _ago(since: float, now: float) -> str:
    """How long ago."""
    return _length(max(0.0, now - since))


def _length(seconds: float) -> str:
    """A length of time as kubectl shortens it."""
    whole = int(seconds)
    for unit, length, until in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if whole < until:
            return f"{whole // length}{unit}"
    return f"{whole // 86_400}d"
