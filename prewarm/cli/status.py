"""`prewarm status`: ImageCaches, one of them, a workload's, or what is known of a node."""

from typing import TYPE_CHECKING, Annotated

import typer

from prewarm.cli.errors import usage
from prewarm.cli.options import Context, Kubeconfig, Output, OutputFormat, parse_workload

if TYPE_CHECKING:
    from prewarm.cluster.client import Client
    from prewarm.model.image_caches import ImageCache
    from prewarm.model.nodes import NodeImages

_NODE_WORDS = frozenset({"node", "nodes", "no"})


def status(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAMESPACE/NAME | KIND/NAMESPACE/NAME | node/NAME]",
            help="An ImageCache, a workload, or a node; without it all ImageCaches.",
        ),
    ] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="List those of this namespace.")] = None,
    output: Output = OutputFormat.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show what is being pulled where, how far it is, and what failed."""
    from prewarm.cli import status_report as report
    from prewarm.cli.live import with_cluster

    parts = (target or "").split("/")
    if target is not None and namespace is not None:
        raise usage("name one object or list those of a --namespace, not both")
    if target is not None and len(parts) == 2 and parts[0] in _NODE_WORDS and parts[1]:
        found = with_cluster(kubeconfig, context, lambda client: _node(client, parts[1]))
        report.print_node(parts[1], found, output)
        return
    if target is not None and not (len(parts) in {2, 3} and all(parts)):
        raise usage(
            f"{target!r}: write NAMESPACE/NAME of an ImageCache, KIND/NAMESPACE/NAME of a workload or node/NAME"
        )
    workload = None if len(parts) != 3 else parse_workload(target or "")
    where = namespace or (workload.namespace if workload is not None else parts[0] if len(parts) == 2 else "")
    caches = with_cluster(kubeconfig, context, lambda client: _caches(client, where))
    if len(parts) == 2:
        one = next((cache for cache in caches if cache.key == (parts[0], parts[1])), None)
        if one is None:
            raise usage(f"no ImageCache {target}; prewarm status -n {parts[0]} lists those that are there")
        report.print_cache(one, output)
    elif workload is not None:
        report.print_caches([cache for cache in caches if cache.workload == str(workload)], output)
    else:
        report.print_caches(caches, output)


async def _caches(client: "Client", namespace: str) -> "list[ImageCache]":
    import msgspec

    from prewarm.api.image_cache import decode_image_cache
    from prewarm.cli.errors import CommandError
    from prewarm.cluster.errors import ApiError
    from prewarm.model.intents import IMAGE_CACHES

    caches = []
    try:
        async for page in client.list_pages(IMAGE_CACHES, namespace=namespace):
            items = msgspec.json.decode(page, type=dict[str, object]).get("items")
            caches += (
                [decode_image_cache(item) for item in items if isinstance(item, dict)]
                if isinstance(items, list)
                else []
            )
    except ApiError as error:
        if error.not_found:
            raise CommandError("the server does not know ImageCaches: prewarm crds prints what to install") from None
        raise
    return sorted(caches, key=lambda cache: cache.key)


async def _node(client: "Client", name: str) -> "NodeImages | None":
    import msgspec

    from prewarm.api.node_image import decode_node_images
    from prewarm.cluster.errors import ApiError
    from prewarm.model.intents import NODE_IMAGES

    try:
        body = await client.get(NODE_IMAGES, "", name)
    except ApiError as error:
        if error.not_found:
            return None
        raise
    return decode_node_images(msgspec.json.decode(body, type=dict[str, object]))
