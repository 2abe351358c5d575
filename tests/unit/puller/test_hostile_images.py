"""Image references are data: what is none is told and pulled nowhere, and none gets into a command."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import prewarm
from e2e.bad_input import HOSTILE_IMAGES, LONG
from prewarm.api.image_cache import decode_image_cache, image_cache_manifest
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import MAX_REFERENCE_LENGTH, PullPolicy, parse_reference
from prewarm.puller.pods import create, order_for
from prewarm.puller.settings import PullerSettings
from tests.support.pulling import MB, World, registries

APP = "registry.test/shop/web:v1"
SHELLS = {"sh", "bash", "ash", "dash", "/bin/sh", "/bin/bash", "-c"}
_SHELL_CALLS = re.compile(r"os\.(system|popen)|subprocess\.(getoutput|getstatusoutput)|create_subprocess_shell")


def cache(*images: str, name: str = "warm") -> ImageCache:
    return ImageCache("shop", name, uid=f"uid-{name}", generation=1, lists=(ImageList(images),))


@pytest.mark.parametrize("image", [*HOSTILE_IMAGES.values(), LONG], ids=[*HOSTILE_IMAGES, "10 kB"])
def test_a_hostile_text_is_refused_in_words_that_are_short_and_printable(image: str) -> None:
    decoded = decode_image_cache(image_cache_manifest(cache(image)))
    assert decoded.error.startswith("spec.cacheSpec[0].images[0]: ")
    assert decoded.error.isprintable()
    assert len(decoded.error) < MAX_REFERENCE_LENGTH
    assert decoded.lists == ()


@pytest.mark.parametrize("image", [*HOSTILE_IMAGES.values(), LONG], ids=[*HOSTILE_IMAGES, "10 kB"])
def test_even_past_the_decoder_it_is_pulled_nowhere_and_others_go_on(image: str) -> None:
    found = World(registries({APP: MB}))
    found.add_nodes(2)
    found.add_cache(cache(image, APP))
    found.add_cache(cache(APP, name="other"))
    found.settle(120)
    status = found.caches["shop", "warm"].status
    assert (status.succeeded, status.failed, dict(status.reasons)) == (2, 2, {"InvalidImage": 2})
    assert found.condition("other") == (True, "Warm")
    assert all(pull.image in {APP, found.settings.helper_image} for pull in found.pulls)


@given(st.text(max_size=200), st.sampled_from([PullPolicy.IF_NOT_PRESENT, PullPolicy.ALWAYS]))
def test_no_command_of_a_puller_holds_anything_of_the_image(image: str, policy: PullPolicy) -> None:
    settings = PullerSettings()
    made = replace(cache(image), pull_policy=policy)
    pod = create(order_for(made, "node-1", "uid", (image,), 1, 0.0), made, settings).manifest["spec"]
    assert isinstance(pod, dict)
    for container in (*pod["initContainers"], *pod["containers"]):
        assert tuple(container["command"]) in {settings.helper_command, settings.hold_command}
        assert not container.get("args")
        assert not SHELLS & set(container["command"])


@given(st.text(max_size=100))
def test_what_parses_has_only_signs_of_references(image: str) -> None:
    try:
        parse_reference(image)
    except ValueError:
        return
    assert re.fullmatch(r"[\w.:/@+\[\]-]+", image, re.ASCII)


def test_nothing_in_the_package_runs_a_shell() -> None:
    for path in Path(prewarm.__file__).parent.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not _SHELL_CALLS.search(source), path
        shells = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.keyword) and node.arg == "shell" and getattr(node.value, "value", True) is not False
        ]
        assert not shells, path
