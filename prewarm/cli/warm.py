"""`prewarm warm`: have images on nodes now, for a pipeline before a deploy."""

from typing import Annotated

import typer

from prewarm.cli.asks import ImagesOnNodes, WorkloadAhead
from prewarm.cli.errors import usage
from prewarm.cli.options import (
    SYSTEM_NAMESPACE,
    Context,
    Kubeconfig,
    Output,
    OutputFormat,
    SetImage,
    SystemNamespace,
    checked_image,
    parse_seconds,
    parse_set_images,
    parse_workload,
)


def warm(
    workload: Annotated[
        str | None,
        typer.Argument(metavar="[KIND/NAMESPACE/NAME]", help="The workload whose next pods are to start warm."),
    ] = None,
    set_image: SetImage = None,
    replicas: Annotated[int | None, typer.Option(help="As if the workload had this many replicas.")] = None,
    coverage: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the workload's pods whose nodes are to be warm.")
    ] = 1.0,
    image: Annotated[list[str] | None, typer.Option(help="Without a workload: an image; repeatable.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Of the ImageCache, with --image.", show_default="default")
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="With --image: on this node; repeatable. Without: on every usual node.")
    ] = None,
    node_selector: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUE", help="With --image: on nodes with this label; repeatable."),
    ] = None,
    pull_secret: Annotated[list[str] | None, typer.Option(help="With --image: an imagePullSecret; repeatable.")] = None,
    service_account: Annotated[str, typer.Option(help="With --image: the service account to pull as.")] = "",
    name: Annotated[str | None, typer.Option(help="Name of the ImageCache.", show_default="from what is asked")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return once everything is there.")] = False,
    timeout: Annotated[str, typer.Option(help="How long --wait waits, such as 90s or 10m.")] = "10m",
    output: Output = OutputFormat.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    system_namespace: SystemNamespace = SYSTEM_NAMESPACE,
) -> None:
    """Warm a workload's next images on the nodes where its pods will land, or plain images on nodes.

    prewarm warm deployment/shop/web --set-image web=registry.example/web:v2 --wait

    prewarm warm --image registry.example/base:v1 --node-selector pool=web --wait --timeout 5m
    """
    seconds = parse_seconds(timeout)
    wanted: WorkloadAhead | ImagesOnNodes
    if workload is not None:
        only_with_image = (namespace, node, node_selector, pull_secret, service_account or None)
        if image or any(option is not None for option in only_with_image):
            raise usage("name a workload or --image with its options, not both")
        key, images = parse_workload(workload), parse_set_images(set_image or ())
        wanted = WorkloadAhead(key, images, replicas, coverage, name or "")
    else:
        if image and (set_image or replicas is not None):
            raise usage("--set-image and --replicas need the workload that they are about: KIND/NAMESPACE/NAME")
        wanted = _on_nodes(image, node, node_selector, pull_secret, service_account, namespace, name)
    from prewarm.cli.live import with_cluster
    from prewarm.cli.warm_run import WarmRun

    run = WarmRun(wanted, timeout=seconds if wait else None, output=output, system_namespace=system_namespace)
    raise typer.Exit(with_cluster(kubeconfig, context, run.run))


def _on_nodes(
    images: list[str] | None,
    nodes: list[str] | None,
    node_selector: list[str] | None,
    pull_secrets: list[str] | None,
    service_account: str,
    namespace: str | None,
    name: str | None,
) -> ImagesOnNodes:
    if not images:
        raise usage("what is to be warmed? Name a workload (KIND/NAMESPACE/NAME) or give --image")
    return ImagesOnNodes(
        namespace=namespace or "default",
        images=tuple(dict.fromkeys(checked_image(text) for text in images)),
        node_names=None if not nodes else tuple(dict.fromkeys(nodes)),
        node_selector=tuple(sorted(_label(text) for text in node_selector or ())),
        pull_secrets=tuple(pull_secrets or ()),
        service_account=service_account,
        name=name or "",
    )


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise usage(f"--node-selector {text!r}: write LABEL=VALUE, such as pool=web")
    return key, value
