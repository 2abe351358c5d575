"""Kinds of other projects come and go with their CRDs, at any time, and nobody waits for them."""

from typing import Any

from structlog.testing import capture_logs

from prewarm.model.intents import (
    ADVANCED_STATEFUL_SETS,
    CANARIES,
    CLONE_SETS,
    CONTROLLER_REVISIONS,
    CRON_JOBS,
    DEPLOYMENTS,
    IMAGE_POLICIES,
    JOBS,
    ROLLOUTS,
    STATEFUL_SETS,
    Resource,
)
from prewarm.model.workloads import WorkloadKey
from tests.support.fake_api_server import Cut, FakeApiServer, Refuse, place_of
from tests.support.mirroring import mirroring, reflector, until

FOREIGN = {"clonesets", "statefulsets", "daemonsets"}
ALL_FOREIGN = {f"{plural}.apps.kruise.io" for plural in FOREIGN} | {"rollouts", "canaries", "imagepolicies"}


def workload(resource: Resource, name: str = "web", **spec: object) -> dict[str, Any]:
    container = {"name": "app", "image": "registry.test/shop/web:v1"}
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"template": {"spec": {"containers": [container]}}, **spec},
    }


def revision(name: str, owner: Resource) -> dict[str, Any]:
    reference = {"apiVersion": owner.api_version, "kind": owner.kind, "name": "web", "uid": "u1", "controller": True}
    data = {"spec": {"template": {"$patch": "replace", "spec": {"containers": [{"name": "app", "image": "a:v1"}]}}}}
    labels = {"apps.kruise.io/pre-predownload-created": "true"}
    metadata = {"name": name, "namespace": "shop", "labels": labels, "ownerReferences": [reference]}
    return {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": data, "revision": 1}


async def test_nobody_waits_for_kinds_that_the_server_does_not_have(server: FakeApiServer) -> None:
    server.missing = set(ALL_FOREIGN)
    with capture_logs() as logs:
        async with mirroring(server) as mirror:
            assert not mirror.missing
            await server.until(lambda: server.count("watch", ROLLOUTS) >= 5)
            assert reflector(mirror, ROLLOUTS).counters.errors == 0
    assert sum(entry.get("kind") == "rollouts.argoproj.io" for entry in logs) == 1
    assert not [entry for entry in logs if entry["log_level"] in {"warning", "error"}]


async def test_a_kind_appears_vanishes_and_appears_again(server: FakeApiServer) -> None:
    server.missing = set(ALL_FOREIGN)
    key = WorkloadKey("Rollout", "shop", "web")
    async with mirroring(server) as mirror:
        server.put(ROLLOUTS, workload(ROLLOUTS))
        server.missing.discard("rollouts")
        await until(mirror, lambda now: key in now.workloads)
        # Objects whose deletion no watch has told of.
        server.remove(ROLLOUTS, "shop", "web", silent=True)
        server.missing.add("rollouts")
        server.inject(ROLLOUTS, Cut())
        await until(mirror, lambda now: key not in now.workloads)
        assert not reflector(mirror, ROLLOUTS).present.is_set()
        server.put(ROLLOUTS, workload(ROLLOUTS))
        server.missing.discard("rollouts")
        await until(mirror, lambda now: key in now.workloads)


async def test_an_image_policy_is_read_in_whichever_version_is_served_and_goes_with_its_kind(
    server: FakeApiServer,
) -> None:
    server.put(
        IMAGE_POLICIES,
        {
            "apiVersion": "image.toolkit.fluxcd.io/v1beta2",
            "kind": "ImagePolicy",
            "metadata": {"name": "web", "namespace": "flux-system"},
            "status": {"latestImage": "registry.test/web:v2"},
        },
    )
    server.fail_next("watch", IMAGE_POLICIES, Refuse(404, "NotFound"))
    async with mirroring(server) as mirror:
        snapshot = await until(mirror, lambda now: bool(now.image_policies))
        assert snapshot.image_policies["flux-system", "web"].image == "registry.test/web:v2"
        server.missing.add("imagepolicies")
        server.inject(IMAGE_POLICIES, Cut())
        await until(mirror, lambda now: not now.image_policies)


async def test_kinds_of_the_same_name_do_not_mix(server: FakeApiServer) -> None:
    server.put(STATEFUL_SETS, workload(STATEFUL_SETS))
    server.put(ADVANCED_STATEFUL_SETS, workload(ADVANCED_STATEFUL_SETS))
    async with mirroring(server) as mirror:
        found = mirror.store.snapshot(0.0).workloads
        assert {str(key): value.api_version for key, value in found.items()} == {
            "statefulset/shop/web": "apps/v1",
            "advancedstatefulset/shop/web": "apps.kruise.io/v1beta1",
        }


async def test_an_older_version_is_read_where_the_newer_is_not_served(server: FakeApiServer) -> None:
    server.put(ADVANCED_STATEFUL_SETS, {**workload(ADVANCED_STATEFUL_SETS), "apiVersion": "apps.kruise.io/v1alpha1"})
    server.fail_next("watch", ADVANCED_STATEFUL_SETS, Refuse(404, "NotFound"))
    async with mirroring(server) as mirror:
        (found,) = mirror.store.snapshot(0.0).workloads.values()
        assert found.api_version == "apps.kruise.io/v1alpha1"
        paths = [request.path for request in server.asked("watch", ADVANCED_STATEFUL_SETS)]
        assert [path.split("/")[3] for path in paths[:2]] == ["v1beta1", "v1alpha1"]


async def test_a_missing_right_is_said_once_and_stops_nobody(server: FakeApiServer) -> None:
    server.fail_next("watch", CANARIES, *(Refuse(403, "Forbidden", "canaries is forbidden") for _ in range(4)))
    with capture_logs() as logs:
        async with mirroring(server) as mirror:
            assert not mirror.missing
            await server.until(lambda: server.watching(CANARIES))
    assert sum("forbidden" in str(entry.get("problem")) for entry in logs) == 1


async def test_rights_that_came_later_keep_nobody_from_what_was_there_before(server: FakeApiServer) -> None:
    """A ClusterRole of an older release knows neither Jobs nor CronJobs; once it does, they are read."""
    server.put(DEPLOYMENTS, workload(DEPLOYMENTS))
    server.put(JOBS, workload(JOBS, "report"))
    for kind in (CRON_JOBS, JOBS):
        refusals = (Refuse(403, "Forbidden", f"{kind.plural} is forbidden") for _ in range(4))
        server.fail_next("watch", kind, *refusals)
    with capture_logs() as logs:
        async with mirroring(server) as mirror:
            assert not mirror.missing
            assert WorkloadKey("Deployment", "shop", "web") in mirror.store.snapshot(0.0).workloads
            await until(mirror, lambda now: WorkloadKey("Job", "shop", "report") in now.workloads)
    assert sum("forbidden" in str(entry.get("problem")) for entry in logs) == 2


async def test_revisions_are_read_only_beside_openkruise(server: FakeApiServer) -> None:
    server.missing = set(ALL_FOREIGN)
    server.put(CONTROLLER_REVISIONS, revision("web-1", CLONE_SETS))
    server.put(CONTROLLER_REVISIONS, revision("other-1", STATEFUL_SETS))
    async with mirroring(server) as mirror:
        await server.until(lambda: server.count("watch", CLONE_SETS) >= 3)
        assert not server.count("watch", CONTROLLER_REVISIONS)
        server.missing.discard(place_of(CLONE_SETS))
        snapshot = await until(mirror, lambda now: "u1" in now.revisions_by_owner)
        (found,) = snapshot.revisions_by_owner["u1"].values()
        assert found.name == "web-1"
        assert found.pre_downloaded
