"""What `prewarm status` prints of ImageCaches and nodes."""

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.cli.output import console
from prewarm.cli.status import missing
from prewarm.cli.status_report import data, view
from prewarm.cli.status_source import Seen, Target
from prewarm.model.image_caches import (
    Completion,
    Condition,
    ImageCache,
    ImageCacheStatus,
    ImageList,
    PullerForm,
    PullFailure,
    Schedule,
)
from prewarm.model.nodes import Evidence, FailedPull, NodeImages, PresentImage
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement

NOW = 1_800_000_000.0
ALL, ONE, NODE = Target(), Target("shop", "warm-web"), Target(node="n1")
CACHE = ImageCache(
    "shop",
    "warm-web",
    generation=1,
    lists=(ImageList(("registry.test/web:v2",), ("n1", "n2")),),
    workload="deployment/shop/web",
    created_at=NOW - 600,
    status=ImageCacheStatus(
        observed_generation=1,
        conditions=(Condition("Ready", False, "PullsFailed", "1 of 2 there", NOW - 300),),
        desired=2,
        succeeded=1,
        failed=1,
        reasons=(("ImageNotFound", 1),),
        failures=(PullFailure("registry.test/web:v2", "n2", "ImageNotFound", "manifest unknown", 5, NOW - 90),),
    ),
)


def shown(target: Target, *caches: ImageCache, node: NodeImages | None = None) -> str:
    out = console()
    with out.capture() as captured:
        out.print(view(target, Seen(caches, node, NOW)))
    return captured.get()


def told(target: Target, *caches: ImageCache, node: NodeImages | None = None) -> Mapping[str, Any]:
    found = data(target, Seen(caches, node, NOW))
    assert isinstance(found, Mapping)
    return found


def test_one_row_a_cache() -> None:
    printed = shown(ALL, CACHE).splitlines()
    columns = "NAMESPACE NAME DESIRED ACTIVE SUCCEEDED FAILED SKIPPED READY AGE WORKLOAD"
    assert next(line for line in printed if "NAMESPACE" in line).split() == columns.split()
    row = next(line for line in printed if "warm-web" in line).split()
    assert row == ["shop", "warm-web", "2", "0", "1", "1", "0", "PullsFailed", "10m", "deployment/shop/web"]


def test_the_workload_has_a_column_only_where_one_was_planned_for() -> None:
    assert "WORKLOAD" not in shown(ALL, replace(CACHE, workload=""))


@pytest.mark.parametrize(
    ("cache", "says"),
    [
        (replace(CACHE, generation=2), "Unseen"),
        (replace(CACHE, suspend=True), "Suspended"),
        (replace(CACHE, error="spec: wrong"), "InvalidSpec"),
    ],
)
def test_what_counts_is_said_instead_of_an_old_verdict(cache: ImageCache, says: str) -> None:
    assert says in shown(ALL, cache)
    assert told(ONE, cache)["state"] == says


def test_no_cache_is_said_in_words() -> None:
    assert shown(ALL) == "No ImageCaches.\n"


def test_programs_get_the_same() -> None:
    (found,) = told(ALL, CACHE)["imageCaches"]
    assert (found["state"], found["nodes"], found["status"]["failed"]) == ("Failed", ["n1", "n2"], 1)


def test_one_cache_shows_its_failures_in_the_kubelets_words() -> None:
    printed = shown(ONE, CACHE)
    assert "manifest unknown" in printed
    assert "Ready: no (PullsFailed) 1 of 2 there, since 5m" in printed
    assert "on 2 nodes: n1, n2" in printed
    assert "progress: [###############...............] 1 of 2" in printed
    assert "puller: Container: a static binary runs in each image; as the policy or the controller is set" in printed


def test_one_cache_shows_when_it_is_looked_after() -> None:
    cache = replace(
        CACHE,
        completion=Completion(once=True, deadline_seconds=1800, ttl_seconds=300),
        schedule=Schedule("0 5 * * *", "Europe/Berlin"),
        hold_seconds=28_800.0,
        puller_form=PullerForm.VOLUME,
        status=replace(CACHE.status, refreshed_at=NOW - 200),
    )
    printed = shown(ONE, cache)
    assert "completion: Once, ends after 30m, deleted 5m after its end" in printed
    assert "schedule: 0 5 * * * (Europe/Berlin)" in printed
    assert "hold: 8h after each pull" in printed
    assert "puller: Volume where the node can" in printed
    assert "last refresh: 3m ago" in printed


def test_one_cache_names_its_nodes_in_words() -> None:
    entry = ImageList(
        ("registry.test/web:v2",),
        node_selector=(("pool", "web"),),
        node_selector_terms=(NodeSelectorTerm((Requirement("zone", Operator.IN, ("a", "b")),)),),
        pod_selector=LabelSelector((("app", "web"),)),
    )
    assert "on nodes with pool=web; nodes with zone In (a, b); nodes of pods app=web" in shown(
        ONE, replace(CACHE, lists=(entry,))
    )
    assert "on every node that takes ordinary pods" in shown(ONE, replace(CACHE, lists=(ImageList(("a:1",)),)))


def test_a_cache_that_goes_while_it_is_watched() -> None:
    assert shown(ONE) == "There is no ImageCache shop/warm-web.\n"
    assert data(ONE, Seen((), None, NOW)) is None


def test_a_nodes_images_with_their_evidence() -> None:
    image = PresentImage("registry.test/web:v2", Evidence.OUR_PULL, NOW - 30, cache="shop/warm-web", pull_seconds=1.5)
    failure = FailedPull("registry.test/db:v1", "shop/db", "uid", "NotFound", "manifest unknown", 3, NOW - 60)
    node = NodeImages("n1", "uid", "boot", (image,), (failure,))
    printed = shown(NODE, node=node)
    row = next(line for line in printed.splitlines() if "web:v2" in line)
    assert row.split() == ["registry.test/web:v2", "OurPull", "30s", "-", "shop/warm-web", "1.5", "s", "-"]
    assert "manifest unknown" in printed
    found = told(NODE, node=node)
    assert found["images"][0]["since"] == "2027-01-15T07:59:30Z"
    assert found["failures"][0]["attempts"] == 3


def test_a_node_of_which_nothing_is_known() -> None:
    assert told(NODE) == {"node": "n1", "images": [], "failures": []}
    assert "Nothing is known of node n1" in shown(NODE)


@pytest.mark.parametrize(
    ("until", "shown_for", "told_as"), [(3600.0, "60m", "2027-01-15T09:00:00Z"), (-1.0, "-", "2027-01-15T07:59:59Z")]
)
def test_an_image_is_held_until_the_record_says(until: float, shown_for: str, told_as: str) -> None:
    image = PresentImage("registry.test/web:v2", Evidence.OUR_PULL, NOW - 600, held_until=NOW + until)
    node = NodeImages("n1", "uid", "boot", (image,))
    row = next(line for line in shown(NODE, node=node).splitlines() if "web:v2" in line)
    assert row.split()[3] == shown_for
    assert told(NODE, node=node)["images"][0]["heldUntil"] == told_as


@pytest.mark.parametrize(
    ("asked", "note", "says", "used"),
    [
        (
            None,
            None,
            "Container: a static binary runs in each image; as the policy or the controller is set",
            "Container",
        ),
        (None, (True, "Mounted"), "Volume: each image is mounted; as the policy or the controller is set", "Volume"),
        (None, (False, "NotEverywhere"), "Volume where the node can, else Container", None),
        (PullerForm.CONTAINER, None, "Container: a static binary runs in each image", "Container"),
        (PullerForm.VOLUME, (True, "Mounted"), "Volume: each image is mounted", "Volume"),
        (PullerForm.VOLUME, (False, "NotEverywhere"), "Volume where the node can, else Container", None),
        (
            PullerForm.VOLUME,
            (False, "Nowhere"),
            "Container: a static binary runs in each image; Volume is asked for, and no node can",
            "Container",
        ),
    ],
)
def test_the_form_in_use_is_told_where_another_is_asked_for(
    asked: PullerForm | None, note: tuple[bool, str] | None, says: str, used: str | None
) -> None:
    notes = () if note is None else (Condition("VolumeForm", note[0], note[1], "", NOW),)
    status = replace(CACHE.status, conditions=(*CACHE.status.conditions, *notes))
    cache = replace(CACHE, puller_form=asked, status=status)
    assert f"puller: {says}\n" in shown(ONE, cache).replace(" \n", "\n")
    assert told(ONE, cache)["pullerFormUsed"] == used


def test_a_cache_that_nobody_looked_at_tells_what_is_asked_for() -> None:
    unseen = replace(CACHE, status=ImageCacheStatus())
    assert "puller: as the policy or the controller is set" in shown(ONE, unseen)
    assert told(ONE, unseen)["pullerFormUsed"] is None


@pytest.mark.parametrize(
    ("namespace", "says"),
    [
        ("shop", "prewarm status -n shop lists those that are there"),
        ("deployment", "if deployment is its kind, ask about it with deployment/NAMESPACE/web"),
        ("imagecache", "if imagecache is its kind, ask about it with imagecache/NAMESPACE/web"),
    ],
)
def test_a_name_without_its_namespace_is_answered_with_what_would_be_right(namespace: str, says: str) -> None:
    assert missing(Target(namespace, "web")) == f"no ImageCache {namespace}/web; {says}"


def test_a_cache_that_is_not_there_is_said_in_plain_words() -> None:
    assert "There is no ImageCache shop/[/bold]." in shown(Target("shop", "[/bold]"))
