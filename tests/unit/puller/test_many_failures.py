"""A thousand pulls that fail, on emulated kubelets: a small status counts them all, and nobody waits for them."""

import msgspec
from msgspec.structs import replace

from prewarm.api.image_cache_status import MAX_STATUS_BYTES, encode_status
from prewarm.model.image_caches import Completion, ImageCache, ImageCacheStatus, ImageList
from prewarm.puller import PullerSettings
from prewarm.simulation.registry import Registry, synthetic_image
from tests.support.pulling import MB, World, registries

NODES = 250
APP = "registry.test/app:v1"
WRONG = tuple(f"registry.test/{letter * 200}:missing" for letter in "ab")
"""Names as long as they come, which the kubelet's words repeat."""
FOREIGN = "registry.test/foreign:v1"
PRIVATE = "private.test/app:v1"


def cache(name: str, *images: str) -> ImageCache:
    lists = (ImageList(images),)
    return ImageCache(
        "shop", name, uid=f"uid-{name}", generation=1, lists=lists, completion=Completion(once=True), attempt_limit=1
    )


def test_a_thousand_failures_are_counted_and_a_few_are_told() -> None:
    found = registries({APP: 20 * MB, FOREIGN: MB})
    found.push(FOREIGN, replace(synthetic_image(FOREIGN, [MB]), matches_platform=False))
    found.declare(replace(Registry("private.test"), accepts=frozenset({"puller:secret"})))
    settings = PullerSettings(cluster_pulls=NODES, registry_pulls=NODES)
    world = World(found, settings=settings, gap=0.25)
    world.add_nodes(NODES)
    world.add_cache(cache("broken", *WRONG, FOREIGN, PRIVATE))
    world.add_cache(cache("good", APP))
    sizes = []
    for _ in range(60):
        world.run(1.0)
        sizes.append(len(msgspec.json.encode(encode_status(status(world, "broken")))))
        if status(world, "good").succeeded == NODES and not world.pods:
            break
    broken, good = status(world, "broken"), status(world, "good")
    assert (broken.desired, broken.active, broken.succeeded, broken.failed) == (4 * NODES, 0, 0, 4 * NODES)
    assert dict(broken.reasons) == {"NotFound": 2 * NODES, "WrongPlatform": NODES, "Unauthorized": NODES}
    assert max(sizes) <= MAX_STATUS_BYTES
    assert broken.failures
    assert all(failure.message and failure.attempts == 1 for failure in broken.failures)
    assert (good.desired, good.succeeded, good.failed) == (NODES, NODES, 0)
    assert world.pulls_of(APP) == dict.fromkeys(world.nodes, 1)
    assert (len(world.created), len(world.pods)) == (5 * NODES, 0)


def status(world: World, name: str) -> ImageCacheStatus:
    return world.caches["shop", name].status
