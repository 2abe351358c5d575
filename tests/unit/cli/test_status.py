"""What `prewarm status` prints of ImageCaches and nodes."""

import json
import time

import pytest

from prewarm.cli.options import OutputFormat
from prewarm.cli.status_report import print_cache, print_caches, print_node
from prewarm.model.image_caches import Condition, ImageCache, ImageCacheStatus, ImageList, PullFailure
from prewarm.model.nodes import Evidence, NodeImages, PresentImage

CACHE = ImageCache(
    "shop",
    "warm-web",
    generation=1,
    lists=(ImageList(("registry.test/web:v2",), ("n1", "n2")),),
    workload="deployment/shop/web",
    created_at=time.time() - 600,
    status=ImageCacheStatus(
        observed_generation=1,
        conditions=(Condition("Ready", False, "PullsFailed", "1 of 2 there", 0.0),),
        desired=2,
        succeeded=1,
        failed=1,
        reasons=(("ImageNotFound", 1),),
        failures=(PullFailure("registry.test/web:v2", "n2", "ImageNotFound", "manifest unknown", 5, 0.0),),
    ),
)


def test_one_row_a_cache(capsys: pytest.CaptureFixture[str]) -> None:
    print_caches([CACHE], OutputFormat.TABLE)
    row = next(line for line in capsys.readouterr().out.splitlines() if "warm-web" in line)
    assert row.split() == ["shop", "warm-web", "deployment/shop/web", "Failed", "1/2", "0", "1", "0", "10m"]


def test_no_cache_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_caches([], OutputFormat.TABLE)
    assert capsys.readouterr().out == "No ImageCaches.\n"


def test_programs_get_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    print_caches([CACHE], OutputFormat.JSON)
    (found,) = json.loads(capsys.readouterr().out)["imageCaches"]
    assert (found["state"], found["nodes"], found["status"]["failed"]) == ("Failed", ["n1", "n2"], 1)


def test_one_cache_shows_its_failures_in_the_kubelets_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_cache(CACHE, OutputFormat.TABLE)
    printed = capsys.readouterr().out
    assert "manifest unknown" in printed
    assert "Ready: no (PullsFailed) 1 of 2 there" in printed
    assert "on 2 nodes: n1, n2" in printed


def test_a_nodes_images_with_their_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    image = PresentImage("registry.test/web:v2", Evidence.OUR_PULL, time.time() - 30, cache="shop/warm-web")
    print_node("n1", NodeImages("n1", "uid", "boot", (image,)), OutputFormat.TABLE)
    assert "OurPull" in capsys.readouterr().out
    print_node("n1", None, OutputFormat.JSON)
    assert json.loads(capsys.readouterr().out) == {"node": "n1", "images": []}
    print_node("n1", None, OutputFormat.TABLE)
    assert "Nothing is known of node n1" in capsys.readouterr().out
