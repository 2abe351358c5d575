"""A seed or two of each fault; `make survive` plays many."""

import pytest

from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.survival.faults import Fault, play
from e2e.survival.lane import running_lane

SLICE = (
    (Fault.KILL, 2),
    (Fault.FIGHT, 1),
    (Fault.API_SERVER, 1),
    (Fault.ETCD, 1),
    (Fault.REFUSALS, 1),
    (Fault.LOST_ANSWERS, 1),
    (Fault.WATCH_GAPS, 1),
    (Fault.NODE, 1),
    (Fault.CLOCK, 1),
)
FIRST_SEED = 1000
"""Beyond those that `make survive` plays."""


@pytest.mark.timeout(300)
async def test_faults_at_random_moments(control_plane_binaries: ControlPlaneBinaries) -> None:
    async with running_lane(FIRST_SEED) as lane:
        for fault, seeds in SLICE:
            for seed in range(FIRST_SEED, FIRST_SEED + seeds):
                await play(fault, lane, seed)
