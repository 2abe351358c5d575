"""Jobs and CronJobs as far as they differ from workloads whose pods stay."""

from msgspec import Struct


class Schedule(Struct, frozen=True):
    """When a CronJob runs: by `cron`, or every so many seconds since `since`."""

    cron: str = ""
    """Five fields."""
    time_zone: str = "Etc/UTC"
    every_seconds: float = 0.0
    """Of @every; 0 = by `cron`."""
    since: float = 0.0
    """Unix seconds from which @every counts."""


class JobProgress(Struct, frozen=True):
    """How far a Job is."""

    completions: int | None = None
    """Pods that have to succeed; None = the first that does ends the creation of others."""
    succeeded: int = 0
    finished: bool = False
    """It is complete or has failed: no pod comes any more."""
