"""A mesh's injecting webhook beside the policies of the chart: pulls work, or the refusal says what to do.

The controller runs under the chart's ServiceAccount, so that the policies bind it as in production.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from e2e.caching import APP, NEXT, Lane, Shop, running_lane
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.selection import Cluster
from e2e.injector import REPOSITORY, injecting
from e2e.release import RELEASE, RELEASE_NAMESPACE, installed, upgrade

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, helm: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    control_plane = cluster.control_plane
    if not isinstance(control_plane, ControlPlane):
        pytest.skip("needs an API server that reaches a webhook in this process")
    with installed(cluster, helm):
        kubeconfig = await control_plane.service_account_kubeconfig(RELEASE_NAMESPACE, RELEASE)
        async with running_lane(cluster, tmp_path_factory.mktemp("mesh"), kubeconfig=kubeconfig) as running:
            yield running


async def failures(shop: Shop, name: str) -> list[dict[str, str | int]]:
    return msgspec.convert((await shop.status(name)).get("failures", []), list[dict[str, str | int]])


async def test_an_injector_that_honours_the_usual_opt_outs_leaves_pullers_alone(lane: Lane, tmp_path: Path) -> None:
    async with lane.shop(nodes=2) as shop, injecting(shop, tmp_path, polite=True) as mesh:
        await shop.cache("run", shop.entry(APP))
        await shop.cache("mounted", shop.entry(NEXT), pullerForm="Volume")
        for name in ("run", "mounted"):
            await shop.wait(name, "Ready", 60)
            assert not await failures(shop, name)
            assert "PodsAltered" not in await shop.conditions(name)
        assert shop.pulls(APP) == shop.pulls(NEXT) == shop.once(*shop.nodes)
        assert set(mesh.injected) == {"ordinary"}
        assert set(mesh.left_alone) == {pod.metadata.name for pod in lane.pods.ordered(shop.namespace)}


async def test_an_injector_that_ignores_them_is_told_of_and_let_in_by_name(
    lane: Lane, helm: Path, tmp_path: Path
) -> None:
    async with lane.shop(nodes=1) as shop, injecting(shop, tmp_path, polite=False):
        await shop.cache("warm", shop.entry(APP), attempts={"limit": 100})
        await shop.wait("warm", "Degraded", 60)
        (failure,) = await failures(shop, "warm")
        assert failure["reason"] == "Refused"
        assert "ValidatingAdmissionPolicy 'prewarm-pullers'" in str(failure["message"])
        assert "name these in admissionPolicies.addedContainers of the chart" in str(failure["message"])
        assert not lane.pods.ordered(shop.namespace)
        # The remedy, as it says.
        option = "admissionPolicies.addedContainers[0]"
        values = f"--set={option}.name=mesh-proxy,{option}.image={REPOSITORY}"
        await asyncio.to_thread(upgrade, lane.cluster, helm, values)
        await shop.kubectl("annotate", "imagecaches.prewarm.dev/warm", "prewarm.dev/refresh=now")
        await shop.wait("warm", "Ready", 90)
        assert shop.pulls(APP) == shop.once(*shop.nodes)
        said = (await shop.conditions("warm"))["PodsAltered"]
        assert said.message == "admission: added container mesh-proxy"
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
