"""Jobs and CronJobs: how many pods they run at once, and when."""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Struct, field
from msgspec.structs import replace

from prewarm.cluster.decoding.common import WireMeta, go_seconds, unix
from prewarm.cluster.decoding.problems import Report
from prewarm.cluster.decoding.workloads import WireWorkloadCondition, decoded_template, workload_of
from prewarm.model.batch import JobProgress, Schedule
from prewarm.model.intents import CRON_JOBS, JOBS
from prewarm.model.workloads import Workload

_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""What CronJobs may write instead of five fields (robfig/cron, parser.go)."""
_EVERY = "@every "
_LONGEST_SCHEDULE = 100
_SHOWN = 64


class WireJobSpec(Struct, rename="camel", gc=False):
    """Spec of a Job, and of a CronJob's jobTemplate."""

    template: msgspec.Raw = field(default_factory=msgspec.Raw)
    parallelism: int | None = None
    completions: int | None = None
    suspend: bool | None = None


class WireJobStatus(Struct, rename="camel", gc=False):
    """Status of a Job."""

    active: int = 0
    succeeded: int = 0
    conditions: list[WireWorkloadCondition] | None = None


class WireJob(Struct, gc=False):
    """batch/v1 Job."""

    metadata: WireMeta
    spec: WireJobSpec = field(default_factory=WireJobSpec)
    status: WireJobStatus = field(default_factory=WireJobStatus)


class WireJobTemplate(Struct, gc=False):
    """spec.jobTemplate of a CronJob."""

    spec: WireJobSpec = field(default_factory=WireJobSpec)


class WireCronJobSpec(Struct, rename="camel", gc=False):
    """Spec of a CronJob."""

    schedule: str = ""
    time_zone: str | None = None
    suspend: bool | None = None
    job_template: WireJobTemplate = field(default_factory=WireJobTemplate)


class WireCronJobStatus(Struct, rename="camel", gc=False):
    """Status of a CronJob."""

    last_schedule_time: str | None = None


class WireCronJob(Struct, gc=False):
    """batch/v1 CronJob."""

    metadata: WireMeta
    spec: WireCronJobSpec = field(default_factory=WireCronJobSpec)
    status: WireCronJobStatus = field(default_factory=WireCronJobStatus)


def job(wire: WireJob, report: Report) -> Workload:
    """A Job; its replicas are the pods that it runs at once, none once it has ended."""
    spec, status = wire.spec, wire.status
    template, hashed = decoded_template(spec.template, report)
    ended = any(one.type in {"Complete", "Failed"} and one.status == "True" for one in status.conditions or ())
    completions = None if spec.completions is None else max(0, spec.completions)
    succeeded = max(0, status.succeeded)
    at_once = 0 if ended else _at_once(spec, succeeded)
    return replace(
        workload_of(JOBS.kind, wire.metadata, template, hashed, None),
        api_version=JOBS.api_version,
        replicas=at_once,
        status_replicas=max(0, status.active),
        max_surge=0,
        max_unavailable=0,
        paused=bool(spec.suspend),
        job=JobProgress(completions, succeeded, ended),
    )


def cron_job(wire: WireCronJob, report: Report) -> Workload:
    """A CronJob; its replicas are the pods with which a run begins. Between two runs none of them is missing."""
    spec = wire.spec
    inner = spec.job_template.spec
    template, hashed = decoded_template(inner.template, report)
    at_once = _at_once(inner, 0)
    since = unix(wire.status.last_schedule_time) or unix(wire.metadata.creation_timestamp) or 0.0
    return replace(
        workload_of(CRON_JOBS.kind, wire.metadata, template, hashed, None),
        api_version=CRON_JOBS.api_version,
        replicas=at_once,
        status_replicas=at_once,
        max_surge=0,
        max_unavailable=0,
        paused=bool(spec.suspend) or bool(inner.suspend),
        schedule=_schedule(spec, since, report),
    )


def _at_once(spec: WireJobSpec, succeeded: int) -> int:
    parallelism = 1 if spec.parallelism is None else max(0, spec.parallelism)
    return parallelism if spec.completions is None else min(parallelism, max(0, spec.completions - succeeded))


def _schedule(spec: WireCronJobSpec, since: float, report: Report) -> Schedule | None:
    """None if it cannot be read: then nobody knows when it runs."""
    text = spec.schedule.strip()[: _LONGEST_SCHEDULE + 1]
    if text.startswith(_EVERY):
        seconds = go_seconds(text.removeprefix(_EVERY).strip())
        if seconds is not None and seconds >= 1:
            return Schedule(every_seconds=float(int(seconds)), since=since)
        report(f"spec.schedule {text[:_SHOWN]!r} is no @every with a duration such as 1h30m")
        return None
    cron, zone = _DESCRIPTORS.get(text, text.replace("?", "*")), spec.time_zone or "Etc/UTC"
    problem = _problem(cron, zone)
    if problem:
        report(problem)
        return None
    return Schedule(cron, zone)


@lru_cache(maxsize=4096)
def _problem(cron: str, zone: str) -> str:
    if len(cron.split()) != 5 or len(cron) > _LONGEST_SCHEDULE:
        return f"spec.schedule {cron[:_SHOWN]!r} has not the five fields of a cron schedule"
    try:
        CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        return f"spec.schedule {cron[:_SHOWN]!r}: {error}"
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return f"spec.timeZone {zone[:_SHOWN]!r} is no known time zone"
    return ""
