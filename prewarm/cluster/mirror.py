"""All reflectors together: one store in step with one cluster."""

import asyncio

from prewarm.cluster.client import Client
from prewarm.cluster.decoding.kinds import Kinds
from prewarm.cluster.decoding.problems import Problems
from prewarm.cluster.feeds import event_feed, feeds
from prewarm.cluster.reflector import Reflector, ReflectorOptions
from prewarm.cluster.store import Store
from prewarm.model.intents import CLONE_SETS, CONTROLLER_REVISIONS, IMAGE_CACHES, NODE_IMAGES, NODES, PODS

_OF_PULLS = frozenset({IMAGE_CACHES, NODE_IMAGES, NODES, PODS})


class Mirror:
    """Keeps a Store in step with a cluster for as long as `run` runs.

    Attributes:
        store: where everything goes.
        reflectors: one a kind; their counters are for metrics.
        problems: counts objects that could not be understood.
    """

    def __init__(
        self,
        client: Client,
        store: Store | None = None,
        *,
        with_events: bool = True,
        options: ReflectorOptions | None = None,
    ) -> None:
        self.store = store or Store()
        self.problems = Problems()
        kinds = Kinds(self.problems)
        wanted = feeds(self.store, kinds) + ((event_feed(self.store, kinds),) if with_events else ())
        revisions = {CONTROLLER_REVISIONS}
        others = tuple(Reflector(client, feed, options=options) for feed in wanted if feed.resource not in revisions)
        kruise = [found for found in others if found.feed.resource.group == CLONE_SETS.group]
        # Every StatefulSet and DaemonSet has revisions, too: without OpenKruise they are not worth reading.
        beside = (
            Reflector(client, feed, options=options, only_beside=kruise)
            for feed in wanted
            if feed.resource in revisions
        )
        self.reflectors = (*others, *beside)

    async def run(self) -> None:
        """Run all reflectors until cancelled.

        Raises:
            ExceptionGroup: if one died of an error of ours; the others are stopped, so that nobody plans on half a
                cluster.
        """
        async with asyncio.TaskGroup() as group:
            for reflector in self.reflectors:
                group.create_task(reflector.run(), name=f"reflector {reflector.name}")

    @property
    def missing(self) -> tuple[str, ...]:
        """Kinds of which the first reading is not complete."""
        return tuple(reflector.name for reflector in self.reflectors if not reflector.synced.is_set())

    async def wait_synced(self) -> None:
        """Return once all kinds were read completely, and those that pulls follow from are up to date.

        While records of nodes lag behind pods, as after a restart of the API server, what another instance pulled and
        tidied away would be pulled again.
        """
        for reflector in self.reflectors:
            await reflector.synced.wait()
        for reflector in self.reflectors:
            if reflector.feed.resource in _OF_PULLS:
                await reflector.in_step.wait()
