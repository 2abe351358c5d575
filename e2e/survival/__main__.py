"""`python -m e2e.survival`: plays every fault many times and prints how often each was survived."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.table import Table

from e2e.survival.faults import Fault, play
from e2e.survival.lane import BrokenError, running_lane

SEEDS: Mapping[Fault, int] = {
    Fault.KILL: 50,
    Fault.KILL_ALL: 6,
    Fault.FIGHT: 8,
    Fault.LEASE: 6,
    Fault.API_SERVER: 5,
    Fault.ETCD: 8,
    Fault.REFUSALS: 10,
    Fault.LOST_ANSWERS: 10,
    Fault.WATCH_CUTS: 8,
    Fault.WATCH_GAPS: 8,
    Fault.WATCH_STALLS: 6,
    Fault.CLOCK: 10,
    Fault.NODE: 10,
}
"""How many seeds of each."""


async def survive(wanted: Mapping[Fault, Sequence[int]], console: Console) -> bool:
    """Play seeds of faults; whether all were survived."""
    survived: Counter[Fault] = Counter()
    broken: list[str] = []
    took: dict[Fault, float] = dict.fromkeys(wanted, 0.0)
    async with running_lane(0) as lane:
        for fault, seeds in wanted.items():
            for seed in seeds:
                began = time.monotonic()
                try:
                    await play(fault, lane, seed)
                except BrokenError as error:
                    broken.append(f"{fault.name} {seed}: {error}")
                    console.print(f"[red]{broken[-1]}[/red]")
                else:
                    survived[fault] += 1
                took[fault] += time.monotonic() - began
            console.print(f"{fault.value}: {survived[fault]} of {len(seeds)} survived, {took[fault]:.0f} s")
        played = dict(lane.proxy.done)
    table = Table("fault", "seeds", "survived", "seconds")
    for fault, seeds in wanted.items():
        table.add_row(fault.value, str(len(seeds)), str(survived[fault]), f"{took[fault]:.0f}")
    console.print(table)
    console.print(f"within them: {', '.join(f'{count} x {name}' for name, count in sorted(played.items()))}")
    return not broken


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Faults, as KILL or NODE; all by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each; 0: as many as `make survive` plays.")] = 0,
    first: Annotated[int, typer.Option(help="The first seed.")] = 0,
) -> None:
    """Play faults against a real control plane; fails if one is not survived."""
    try:
        faults = [Fault[name.upper()] for name in names or []] or list(Fault)
    except KeyError as error:
        known = ", ".join(fault.name for fault in Fault)
        raise typer.BadParameter(f"no fault is called {error.args[0]}; there are {known}") from None
    # One of the controllers runs in this process.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    wanted = {fault: range(first, first + (seeds or SEEDS[fault])) for fault in faults}
    if not asyncio.run(survive(wanted, Console())):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
