"""Pulls wait until it is stored that their images are to be purged; not for ever, and without haste."""

from prewarm.cluster.client import Client
from prewarm.controller.persistence import Persistence
from prewarm.controller.purge_keeping import AGAIN_SECONDS, PATIENCE_SECONDS, PurgeKeeping
from prewarm.model.intents import CONFIG_MAPS
from prewarm.puller import MAX_REMEMBERED, RememberedCache, decode_remembered
from tests.support.fake_api_server import FakeApiServer, Refuse

NAMESPACE = "prewarm-system"
OLD, NEW = (RememberedCache(f"uid-{name}", "shop", name) for name in ("old", "new"))
FORBIDDEN = Refuse(403, "Forbidden", "configmaps is forbidden")


class Clock:
    """Goes on when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def stored(server: FakeApiServer) -> tuple[RememberedCache, ...]:
    return decode_remembered(server.objects(CONFIG_MAPS)[NAMESPACE, "prewarm-purge"]["data"]["caches"])


async def test_a_change_is_stored_once(server: FakeApiServer, client: Client) -> None:
    keeping = PurgeKeeping(Persistence(client, NAMESPACE), (), Clock())
    for _ in range(3):
        await keeping.keep((OLD,))
    assert stored(server) == (OLD,)
    assert server.count("patch", CONFIG_MAPS) == 1
    assert not keeping.holds_back(OLD.uid)
    assert keeping.again_in is None


async def test_only_what_is_not_stored_waits_and_only_for_a_while(server: FakeApiServer, client: Client) -> None:
    clock = Clock()
    keeping = PurgeKeeping(Persistence(client, NAMESPACE), (OLD,), clock)
    server.fail_next("patch", CONFIG_MAPS, *[FORBIDDEN] * 100)
    await keeping.keep((NEW, OLD))
    assert (keeping.holds_back(OLD.uid), keeping.holds_back(NEW.uid)) == (False, True)
    for _ in range(10):
        await keeping.keep((NEW, OLD))
    assert server.count("patch", CONFIG_MAPS) == 1
    assert keeping.again_in == AGAIN_SECONDS
    clock.now += AGAIN_SECONDS
    await keeping.keep((NEW, OLD))
    assert server.count("patch", CONFIG_MAPS) == 2
    clock.now += PATIENCE_SECONDS
    assert not keeping.holds_back(NEW.uid)


async def test_what_is_stored_later_waits_no_more(server: FakeApiServer, client: Client) -> None:
    clock = Clock()
    keeping = PurgeKeeping(Persistence(client, NAMESPACE), (), clock)
    server.fail_next("patch", CONFIG_MAPS, FORBIDDEN)
    await keeping.keep((NEW,))
    clock.now += AGAIN_SECONDS
    await keeping.keep((NEW,))
    assert stored(server) == (NEW,)
    assert not keeping.holds_back(NEW.uid)
    assert keeping.again_in is None


async def test_what_needs_no_purge_any_more_goes_from_the_list(server: FakeApiServer, client: Client) -> None:
    keeping = PurgeKeeping(Persistence(client, NAMESPACE), (NEW, OLD), Clock())
    await keeping.keep((OLD,))
    assert stored(server) == (OLD,)


async def test_of_too_many_the_first_are_stored(server: FakeApiServer, client: Client) -> None:
    many = tuple(RememberedCache(f"uid-{number}", "shop", f"n{number}") for number in range(MAX_REMEMBERED + 10))
    await PurgeKeeping(Persistence(client, NAMESPACE), (), Clock()).keep(many)
    assert stored(server) == many[:MAX_REMEMBERED]
