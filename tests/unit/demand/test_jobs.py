"""Which pods Jobs and CronJobs create next, and when they are planned."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.demand import coverage, demands, plan_again_at, pods_of_revision, what_if
from prewarm.demand.jobs import LEAD_SECONDS, STARTING_SECONDS, lead_seconds, next_run
from prewarm.history import History
from prewarm.model.batch import JobProgress, Schedule
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import ContainerPhase, ContainerStatus, OwnerReference, Pod, PodPhase
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import cluster, deployment, template

NIGHTLY = WorkloadKey("CronJob", "shop", "report")
IMPORT = WorkloadKey("Job", "shop", "import")
V1 = template("registry.test/report:v1", name="report")
DAY = 86_400.0
AT_THREE = Schedule("0 3 * * *")


def cron_job(schedule: Schedule | None = AT_THREE, **fields: Any) -> Workload:
    return deployment(V1, key=NIGHTLY, replicas=fields.pop("parallelism", 2), schedule=schedule, **fields)


def job(completions: int | None, succeeded: int = 0, *, parallelism: int = 2, **fields: Any) -> Workload:
    progress = JobProgress(completions, succeeded, fields.pop("finished", False))
    return deployment(V1, key=IMPORT, replicas=parallelism, job=progress, **fields)


def pod(owner: Workload, number: int, created_at: float, ended_at: float | None = None) -> Pod:
    return Pod(
        "shop",
        f"p{number}",
        f"uid-p{number}",
        "n0",
        owner=OwnerReference("Job", owner.key.name, owner.uid, "batch/v1"),
        shape=V1.shape,
        phase=PodPhase.RUNNING if ended_at is None else PodPhase.SUCCEEDED,
        created_at=created_at,
        containers=(ContainerStatus("c0", ContainerPhase.TERMINATED, finished_at=ended_at),),
    )


def wanted(found: ClusterSnapshot, key: WorkloadKey, policy: Policy | None = None) -> Demand | None:
    asked = demands(found, key, policy or Policy(), History())
    assert len(asked) <= 1
    return asked[0] if asked else None


def looked_at_again(found: ClusterSnapshot, key: WorkloadKey) -> float | None:
    workload = found.workloads[key]
    return plan_again_at(found, workload, coverage(found, workload), History())


def test_the_next_runs_pods_are_needed_at_its_time() -> None:
    demand = wanted(cluster(workloads=[cron_job()], now=3 * 3600 - 300), NIGHTLY)
    assert demand is not None
    assert (demand.trigger, demand.pods) == (Trigger.SCHEDULED, 2)
    assert demand.batches[0].needed_at == 3 * 3600
    assert demand.images == ("registry.test/report:v1",)


def test_a_run_that_is_far_away_is_looked_at_again_in_time() -> None:
    found = cluster(workloads=[cron_job()], now=1000.0)
    assert wanted(found, NIGHTLY) is None
    again = looked_at_again(found, NIGHTLY)
    assert again is not None
    assert again <= 3 * 3600 - LEAD_SECONDS
    assert wanted(replace(found, taken_at=again), NIGHTLY) is not None


@given(
    now=st.integers(0, int(40 * DAY)), cron=st.sampled_from(["0 3 * * *", "*/5 * * * *", "30 2 * * 1-5", "0 0 1 * *"])
)
def test_a_plan_changes_only_when_it_is_looked_at_again(now: int, cron: str) -> None:
    """Between two looks nothing becomes due, so no run is missed between two resyncs."""
    found = cluster(workloads=[cron_job(Schedule(cron, "Europe/Berlin"))], now=now)
    again = looked_at_again(found, NIGHTLY)
    assert again is not None
    assert again > now
    just_before = replace(found, taken_at=again - 0.5)
    assert wanted(just_before, NIGHTLY) == wanted(found, NIGHTLY)


def test_a_plan_stays_while_the_runs_pods_start_and_then_goes() -> None:
    found = cluster(workloads=[cron_job()], now=3 * 3600 + 1.0)
    starting = wanted(found, NIGHTLY)
    assert starting is not None
    assert starting.pods == 0
    again = looked_at_again(found, NIGHTLY)
    assert again == 3 * 3600 + STARTING_SECONDS
    assert wanted(replace(found, taken_at=again), NIGHTLY) is None


@pytest.mark.parametrize("fields", [{"paused": True}, {"schedule": None}, {"parallelism": 0}])
def test_a_suspended_or_unreadable_one_needs_nothing(fields: dict[str, Any]) -> None:
    assert wanted(cluster(workloads=[cron_job(**fields)], now=3 * 3600 - 60), NIGHTLY) is None


def test_a_policy_without_scale_out_plans_no_runs() -> None:
    found = cluster(workloads=[cron_job()], now=3 * 3600 - 60)
    assert wanted(found, NIGHTLY, Policy(scale_out=False)) is None


def test_what_if_a_run_had_another_image() -> None:
    found = what_if(cluster(workloads=[cron_job()], now=0.0), NIGHTLY, images={"c0": "registry.test/report:v2"})
    demand = wanted(found, NIGHTLY)
    assert demand is not None
    assert (demand.trigger, demand.pods, demand.images) == (Trigger.WHAT_IF, 2, ("registry.test/report:v2",))


def test_the_time_zone_counts_also_when_clocks_change() -> None:
    zone = ZoneInfo("Europe/Berlin")
    schedule = Schedule("0 8 * * *", "Europe/Berlin")
    for day in (28, 29, 30):
        eve = datetime(2026, 3, day - 1, 12, tzinfo=zone).timestamp()
        assert next_run(schedule, eve) == datetime(2026, 3, day, 8, tzinfo=zone).timestamp()


def test_every_counts_from_the_last_run() -> None:
    schedule = Schedule(every_seconds=90.0, since=1000.0)
    assert [next_run(schedule, now) for now in (900.0, 1000.0, 1089.0, 1090.0)] == [1090.0, 1090.0, 1090.0, 1180.0]


def test_pods_of_a_run_are_of_the_cron_jobs_revision() -> None:
    owner = cron_job()
    run = replace(job(None), owner=OwnerReference("CronJob", NIGHTLY.name, owner.uid, "batch/v1"))
    found = cluster(pods=[pod(run, 1, 900.0)], workloads=[owner], replica_sets=[run], now=3 * 3600 - 60)
    demand = wanted(found, NIGHTLY)
    assert demand is not None
    assert [one.name for one in pods_of_revision(demand, found)] == ["p1"]


def test_a_running_job_needs_as_many_pods_as_run_at_once() -> None:
    running = job(10, 3)
    found = cluster(
        pods=[pod(running, 1, 100.0, 150.0), pod(running, 2, 960.0), pod(running, 3, 980.0)],
        workloads=[running],
        now=1000.0,
    )
    demand = wanted(found, IMPORT)
    assert demand is not None
    assert (demand.trigger, demand.pods, demand.batches[0].needed_at) == (Trigger.SCHEDULED, 2, 1010.0)
    assert demand.leaving == (("shop", "p2"), ("shop", "p3"))


@pytest.mark.parametrize(
    "found", [job(5, 3), job(None), job(10, 10, finished=True, parallelism=0), job(10, 3, parallelism=0)]
)
def test_a_job_whose_pods_are_all_there_needs_nothing(found: Workload) -> None:
    pods = [pod(found, 1, 960.0), pod(found, 2, 980.0)]
    assert wanted(cluster(pods=pods, workloads=[found]), IMPORT) is None


def test_a_suspended_job_is_an_announcement() -> None:
    demand = wanted(cluster(workloads=[job(10, paused=True)], now=1000.0), IMPORT)
    assert demand is not None
    assert (demand.trigger, demand.pods) == (Trigger.ANNOUNCED, 2)
    assert demand.batches[0].needed_at > 1000.0 + 3600


def test_pulls_that_take_long_begin_earlier() -> None:
    assert lead_seconds(["registry.test/a:v1"], History()) == LEAD_SECONDS
    many = [f"registry.test/report-{number}:v1" for number in range(200)]
    assert lead_seconds(many, History()) > LEAD_SECONDS
