"""What is read of Jobs and CronJobs, and whose pods those of a Job are."""

import json
from typing import Any

import pytest

from prewarm.cluster.decoding.kinds import Kinds
from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.model.batch import JobProgress, Schedule
from prewarm.model.intents import CRON_JOBS, JOBS, Resource
from prewarm.model.pods import OwnerReference, Pod
from prewarm.model.workloads import Workload, WorkloadKey

KEY = WorkloadKey("CronJob", "shop", "report")
TEMPLATE = {"metadata": {"labels": {"app": "report"}}, "spec": {"containers": [{"name": "app", "image": "a:v1"}]}}
OWNER = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": "uid-report", "controller": True}


def cron_job(schedule: str = "0 3 * * *", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "report", "namespace": "shop", "uid": "uid-report"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": TEMPLATE, "parallelism": 3}}, **spec},
    }


def job(name: str, owners: list[dict[str, Any]], status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "ownerReferences": owners},
        "spec": {"template": TEMPLATE, **spec},
        "status": status or {},
    }


def decoded(resource: Resource, wire: dict[str, Any]) -> Workload:
    kinds = Kinds()
    value = (kinds.jobs if resource is JOBS else kinds.cron_jobs).one(json.dumps(wire).encode()).value
    assert value is not None
    return value


def filled(*objects: tuple[Resource, dict[str, Any]]) -> Store:
    store = Store()
    for resource, wire in objects:
        feed = next(found for found in feeds(store) if found.resource == resource)
        feed.put_raw(json.dumps(wire).encode())
    return store


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("0 3 * * *", None, Schedule("0 3 * * *")),
        ("*/5 * ? * MON-FRI", "Europe/Berlin", Schedule("*/5 * * * MON-FRI", "Europe/Berlin")),
        ("@hourly", None, Schedule("0 * * * *")),
        ("@every 1h30m", None, Schedule(every_seconds=5400.0)),
        ("@every nonsense", None, None),
        ("0 3 * *", None, None),
        ("99 3 * * *", None, None),
        ("0 0 30 2 *", None, None),
        ("0 3 * * *", "Nowhere/../../etc/passwd", None),
        ("0 " * 500, None, None),
    ],
)
def test_a_schedule_that_cannot_be_read_says_nothing(text: str, zone: str | None, expected: Schedule | None) -> None:
    assert decoded(CRON_JOBS, cron_job(text, timeZone=zone)).schedule == expected


def test_a_run_begins_with_as_many_pods_as_run_at_once() -> None:
    assert decoded(CRON_JOBS, cron_job()).replicas == 3
    inner = {"template": TEMPLATE, "parallelism": 3, "completions": 2}
    assert decoded(CRON_JOBS, cron_job(jobTemplate={"spec": inner})).replicas == 2
    assert decoded(CRON_JOBS, cron_job(suspend=True)).paused


def test_a_jobs_progress() -> None:
    running = decoded(JOBS, job("one", [], {"succeeded": 3, "active": 2}, completions=10, parallelism=2))
    assert (running.replicas, running.job) == (2, JobProgress(10, 3))
    ended = {"succeeded": 10, "conditions": [{"type": "Complete", "status": "True"}]}
    over = decoded(JOBS, job("one", [], ended, completions=10, parallelism=2))
    assert (over.replicas, over.job) == (0, JobProgress(10, 10, finished=True))


def test_a_runs_template_counts_as_equal_to_its_cron_jobs() -> None:
    labels = {
        "app": "report",
        "batch.kubernetes.io/controller-uid": "u",
        "batch.kubernetes.io/job-name": "report-1",
        "controller-uid": "u",
        "job-name": "report-1",
    }
    run = decoded(JOBS, job("report-1", [OWNER], template={**TEMPLATE, "metadata": {"labels": labels}}))
    assert run.template_hash == decoded(CRON_JOBS, cron_job()).template_hash


def test_pods_of_a_run_are_the_cron_jobs() -> None:
    store = filled((CRON_JOBS, cron_job()), (JOBS, job("report-1", [OWNER])))
    found = store.snapshot(0.0)
    assert found.workloads.keys() == {KEY}
    assert found.replica_sets_by_owner["uid-report"].keys() == {("shop", "report-1")}
    store.changed()
    pod = Pod("shop", "p", "uid-p", owner=OwnerReference("Job", "report-1", "uid-report-1", "batch/v1"))
    store.pods.put(pod.key, pod)
    assert store.changed().workloads == {KEY}
    store.jobs.remove(("shop", "report-1"))
    assert store.changed().workloads == {KEY}
    assert not store.snapshot(0.0).replica_sets_by_owner


def test_a_job_of_no_cron_job_is_a_workload() -> None:
    key = WorkloadKey("Job", "shop", "import")
    store = filled((JOBS, job("import", [])))
    assert store.changed().intended == {key}
    pod = Pod("shop", "p", "uid-p", owner=OwnerReference("Job", "import", "uid-import", "batch/v1"))
    store.pods.put(pod.key, pod)
    assert store.changed().workloads == {key}
    foreign = OwnerReference("Job", "import", "v", "batch.volcano.sh/v1")
    store.pods.put(("shop", "q"), Pod("shop", "q", "q", owner=foreign))
    assert not store.changed().workloads
    store.jobs.remove(("shop", "import"))
    assert not store.snapshot(0.0).workloads
