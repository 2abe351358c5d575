"""`python -m e2e.demo`: three rollouts of one Deployment on a real control plane, side by side."""

import asyncio
import signal
import time
from typing import Annotated

import typer
from rich.console import Console

from e2e.cluster.gomodules import ToolError
from e2e.cluster.processes import ProcessError
from e2e.demo.environment import SYSTEM_NAMESPACE, Environment, running
from e2e.demo.progress import Display
from e2e.demo.report import RolloutResult, comparison
from e2e.demo.rollouts import reset, roll_out
from e2e.demo.scenario import BACKGROUND_NAMESPACE, NAMESPACE, WEB, Scenario, background, image, namespace
from e2e.demo.verdict import shortfalls


def main(
    keep: Annotated[bool, typer.Option(help="Leave the cluster running afterwards, until Ctrl-C.")] = False,
    check: Annotated[bool, typer.Option(help="Fail if a figure that the README promises is missed.")] = False,
    nodes: Annotated[int, typer.Option(min=3, max=1000, help="Emulated nodes.")] = Scenario.nodes,
    replicas: Annotated[int, typer.Option(min=2, max=1000, help="Pods of the web Deployment.")] = Scenario.replicas,
    image_bytes: Annotated[int, typer.Option(min=1, help="Compressed size of its image.")] = Scenario.image_bytes,
    seed: Annotated[int, typer.Option(help="Decides node sizes and background load.")] = Scenario.seed,
) -> None:
    """Roll a Deployment out cold, prewarmed and announced; print what each cost. Exit code 1 says what failed."""
    scenario = Scenario(nodes=nodes, replicas=replicas, image_bytes=image_bytes, seed=seed)
    console = Console()
    try:
        missed = asyncio.run(_demo(scenario, console, keep=keep))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (ToolError, ProcessError, TimeoutError) as error:
        console.print(f"demo: {str(error) or 'a rollout did not end in time'}", style="red", markup=False)
        raise typer.Exit(1) from None
    if check and missed:
        for line in missed:
            console.print(f"missed: {line}", style="red", markup=False)
        raise typer.Exit(1)


async def _demo(scenario: Scenario, console: Console, *, keep: bool) -> list[str]:
    display = Display(console, scenario.replicas)
    display.step(f"starting etcd, kube-apiserver, controllers, scheduler and {scenario.nodes} emulated nodes")
    async with running(scenario) as environment:
        await _prepare(environment, scenario, display)
        results = [
            await _cold(environment, scenario, display),
            await _prewarmed(environment, scenario, display),
            await _announced(environment, scenario, display),
        ]
        console.print()
        console.print(comparison(results))
        _explain(console, scenario)
        if keep:
            await _keep(environment, console)
        return shortfalls(results)


async def _prepare(environment: Environment, scenario: Scenario, display: Display) -> None:
    display.step(f"Kubernetes {environment.plane.kubernetes_version} is up; installing prewarm's kinds and rights")
    await environment.install()
    for name in (NAMESPACE, BACKGROUND_NAMESPACE):
        await environment.apply(*namespace(name))
    load = background(scenario, await environment.node_names())
    display.step(f"deploying {len(load)} background Deployments and {WEB}:v1 with {scenario.replicas} pods")
    for resource, manifest in load:
        await environment.apply(resource, manifest)
    await reset(environment, scenario, opted_in=False)


async def _cold(environment: Environment, scenario: Scenario, display: Display) -> RolloutResult:
    with display.rollout(f"1  {WEB}:v2, prewarm off") as progress:
        return await roll_out(environment, scenario, "off", "v2", opted_in=False, progress=progress)


async def _prewarmed(environment: Environment, scenario: Scenario, display: Display) -> RolloutResult:
    display.step("starting the controller; one annotation opts the Deployment in; back to v1")
    await environment.start_controller()
    await reset(environment, scenario, opted_in=True)
    with display.rollout(f"2  {WEB}:v3, prewarm on") as progress:
        return await roll_out(environment, scenario, "on", "v3", opted_in=True, progress=progress)


async def _announced(environment: Environment, scenario: Scenario, display: Display) -> RolloutResult:
    await reset(environment, scenario, opted_in=True)
    display.step(f"announcing {WEB}:v4: prewarm warm deployment/{NAMESPACE}/{WEB} --set-image ... --wait")
    began = time.monotonic()
    await environment.prewarm(
        "warm", f"deployment/{NAMESPACE}/{WEB}", "--set-image", f"{WEB}={image('v4')}", "--wait", "--timeout", "120"
    )
    announced = time.monotonic() - began
    with display.rollout(f"3  {WEB}:v4, prewarm on, announced before") as progress:
        result = await roll_out(environment, scenario, "announced", "v4", opted_in=True, progress=progress)
    return RolloutResult(result.title, result.recorder, result.outcomes, result.bytes, announced)


def _explain(console: Console, scenario: Scenario) -> None:
    console.print(
        f"\nA stock rollout creates its first burst (surge and unavailable, here {scenario.replicas // 2} pods) before "
        "anything can be pulled:\nthose pods stay cold unless the image was announced. The pods after them start warm.",
        highlight=False,
        soft_wrap=True,
    )


async def _keep(environment: Environment, console: Console) -> None:
    kubeconfig = environment.plane.kubeconfig
    console.print(
        f"\nThe cluster stays until Ctrl-C. In another terminal:\n"
        f"  export KUBECONFIG={kubeconfig}\n"
        f"  {environment.plane.binaries.kubectl} get imagecaches.prewarm.dev -A\n"
        f"  {environment.plane.binaries.kubectl} get nodeimages.prewarm.dev\n"
        f"  .venv/bin/prewarm plan --workload deployment/{NAMESPACE}/{WEB} --set-image {WEB}={image('v5')}\n"
        f"  .venv/bin/prewarm status\n"
        f"  curl http://127.0.0.1:{environment.metrics_port}/metrics\n"
        f"  tail -f {environment.controller_log}   (namespace {SYSTEM_NAMESPACE})",
        highlight=False,
        soft_wrap=True,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        environment.check()
        try:
            async with asyncio.timeout(1.0):
                await stop.wait()
        except TimeoutError:
            continue


if __name__ == "__main__":
    typer.run(main)
