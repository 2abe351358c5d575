"""Pulls that take longer than a change may be held: the controller opens in time, and the rollout starts cold."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from e2e import gate
from e2e.cluster.selection import Cluster
from e2e.gated import GATED, HELD, annotations, change, gated, opened, reasons, spec_of
from e2e.lane import Lane, LanePlan, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=3, prefix="gate-timeout", image_bytes=20_000_000, bandwidth=2e6, varied=False)
"""An image takes ten seconds."""
BRIEF = {**GATED, "prewarm.dev/gate": "3s"}
SYSTEM = f"prewarm-gate-timeout-{os.getpid()}"
"""Namespace of the lease."""


@pytest.fixture(scope="module")
def policies(cluster: Cluster) -> Iterator[None]:
    gate.install(cluster, SYSTEM)
    yield
    gate.remove(cluster, SYSTEM)


@pytest.fixture
async def lane(cluster: Cluster, policies: None, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_the_controller_opens_what_has_been_held_for_long_enough(lane: Lane, kind: str) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind, BRIEF)
    before = await spec_of(lane, kind)
    started = asyncio.get_running_loop().time()
    await change(lane, kind, "v2")
    assert HELD in await annotations(lane, kind)
    await opened(lane, kind)
    taken = asyncio.get_running_loop().time() - started

    assert await reasons(lane) == ["Timeout"]
    # The marker's time is in whole seconds, cut off.
    assert 2.0 < taken < PLAN.image_bytes / PLAN.bandwidth
    after = await spec_of(lane, kind)
    assert {key: after.get(key) for key in ("paused", "updateStrategy")} == {
        key: before.get(key) for key in ("paused", "updateStrategy")
    }
    await lane.rolled_out(f"{kind.lower()}/shop")
