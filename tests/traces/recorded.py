"""The recorded cases."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from prewarm.simulation.messages import Runtime
from tests.traces.account import Account, EventSeen, Json, normal, note_status, recorded_status

FOLDER = Path(__file__).parents[1] / "data" / "kubelet-traces"
CASES = sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.json"))
RETRY_GAP = 9.0
"""Seconds without any sign of a pod after which the next sign is a repeated sync (back-off 10 to 15 s)."""


class Trace:
    """A recorded case."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.raw = json.loads((FOLDER / f"{case}.json").read_text(encoding="utf-8"))
        self.timeline = self.raw["timeline"]
        self.runtime = Runtime(f"containerd://{self.raw['containerd']}")
        self.pods = [self.raw["pod"]] if "pod" in self.raw else self.raw["pods"]

    def entries(self, kind: str) -> Iterator[tuple[float, Json]]:
        """Entries of a kind with their times."""
        for entry in self.timeline:
            if entry["kind"] == kind:
                yield entry["t"], entry["object"]

    def account(self) -> Account:
        """The case as it was recorded."""
        found = Account()
        for t, o in self.entries("event"):
            seen = EventSeen(
                t,
                str(o["type"]),
                str(o["reason"]),
                str(o.get("fieldPath", "")),
                normal(str(o["message"])),
                int(str(o["count"])),
            )
            found.events.setdefault(str(o["pod"]), []).append(seen)
        self._statuses(found)
        for t, o in self.entries("node"):
            images = o["status"]["images_of_case"]  # type: ignore[index]
            found.images.append((t, [tuple(i["names"]) for i in images], [i["sizeBytes"] for i in images]))
        self._counters(found)
        return found

    def _counters(self, found: Account) -> None:
        """Differences over the case; after a restart of the kubelet what its counters had reached."""
        restarted = next((t for t, text in self.notes() if text == "kubelet started"), None)
        for t, o in self.entries("metrics"):
            after = str(o["note"]).startswith("after")
            if after or (restarted is not None and t > restarted):
                found.counters |= {str(k): float(v) for k, v in o["values"].items()}  # type: ignore[attr-defined]

    def _statuses(self, found: Account) -> None:
        whole: dict[str, Json] = {}
        for t, o in self.entries("pod"):
            meta: Json = o["metadata"]  # type: ignore[assignment]
            key = f"{meta['namespace']}/{meta['name']}"
            if o["watch"] == "DELETED":
                found.deleted[key] = t
                continue
            status = whole.setdefault(key, {})
            for name, value in o["status"].items():  # type: ignore[attr-defined]
                if name in {"conditions", "containerStatuses", "initContainerStatuses"}:
                    by = "type" if name == "conditions" else "name"
                    merged = {x[by]: x for x in status.get(name, [])} | {x[by]: x for x in value}  # type: ignore[attr-defined]
                    status[name] = list(merged.values())
                else:
                    status[name] = value
            for name in o.get("removed", []):  # type: ignore[attr-defined]
                status.pop(name, None)
            if "startTime" in status:
                note_status(found.statuses.setdefault(key, []), t, recorded_status(status))

    def created(self) -> dict[str, tuple[float, str]]:
        """When each pod's creation was seen, and its uid."""
        found: dict[str, tuple[float, str]] = {}
        for t, o in self.entries("pod"):
            if o["watch"] == "ADDED":
                meta: Json = o["metadata"]  # type: ignore[assignment]
                found[f"{meta['namespace']}/{meta['name']}"] = (t, str(meta["uid"]))
        return found

    def deletions(self) -> list[tuple[float, str, float, int]]:
        """Deletions by a pod's owner: time, pod, grace and generation."""
        found: dict[str, tuple[float, str, float, int]] = {}
        for t, o in self.entries("pod"):
            meta: Json = o["metadata"]  # type: ignore[assignment]
            key = f"{meta['namespace']}/{meta['name']}"
            if "deletionTimestamp" in meta and key not in found:
                found[key] = (
                    t,
                    key,
                    float(str(meta.get("deletionGracePeriodSeconds", 0))),
                    int(str(meta.get("generation", 2))),
                )
        return list(found.values())

    def notes(self) -> list[tuple[float, str]]:
        """What the test did."""
        return [(t, str(o["text"])) for t, o in self.entries("note")]

    def retries(self) -> dict[str, list[float]]:
        """When each pod's syncs were repeated: what the kubelet's jitter was."""
        signs: dict[str, list[float]] = {}
        for t, o in self.entries("event"):
            signs.setdefault(str(o["pod"]), []).append(t)
        for t, o in self.entries("pod"):
            meta: Json = o["metadata"]  # type: ignore[assignment]
            key = f"{meta['namespace']}/{meta['name']}"
            if "deletionTimestamp" not in meta and o["watch"] != "DELETED":
                signs.setdefault(key, []).append(t)
        ends = {key: t for t, key, _, _ in self.deletions()}
        for t, o in self.entries("event"):
            if o["reason"] == "DeadlineExceeded":
                ends[str(o["pod"])] = min(t, ends.get(str(o["pod"]), t))
        repeated: dict[str, list[float]] = {}
        for key, times in signs.items():
            times = sorted(t for t in times if t < ends.get(key, t + 1))
            for before, after in pairwise(times):
                if after - before >= RETRY_GAP:
                    hidden = max(1, round((after - before) / 12.5))
                    step = (after - before) / hidden
                    repeated.setdefault(key, []).extend(before + step * (n + 1) for n in range(hidden))
        return repeated


@cache
def trace(case: str) -> Trace:
    """A recorded case, read once."""
    return Trace(case)
