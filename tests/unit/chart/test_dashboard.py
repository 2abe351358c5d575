"""The dashboard asks for nothing that the controller does not export."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prewarm.controller import metrics
from prewarm.model.outcomes import Outcome

DASHBOARD = Path(__file__).parents[3] / "charts/prewarm/dashboards/prewarm.json"
_METRIC = re.compile(r"\b((?:prewarm|process)_[a-z_]+)\b")


def panels() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        targets = panel.get("targets", [])
        assert isinstance(targets, list)
        for target in targets:
            yield str(panel["title"]), target["expr"]


def exported() -> dict[str, frozenset[str]]:
    """Names of all series with their labels; those of reflectors, which have none to be read from here, by `kind`."""
    names = {value for value in vars(metrics).values() if isinstance(value, str) and value.startswith("prewarm_")}
    labels = {name: frozenset({"kind"}) for name in names}
    for collector, series in metrics.Metrics(version="test").registry._collector_to_names.items():
        labels.update(dict.fromkeys(series, frozenset(getattr(collector, "_labelnames", ()))))
    return labels


PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
METRICS = exported()


@pytest.mark.parametrize(("title", "query"), list(queries()))
def test_every_metric_of_a_query_is_exported(title: str, query: str) -> None:
    names = set(_METRIC.findall(query))
    assert names, f"{title} asks for nothing"
    assert names <= METRICS.keys() | PROCESS, title


@pytest.mark.parametrize(("title", "query"), list(queries()))
def test_queries_group_by_labels_that_their_metric_has(title: str, query: str) -> None:
    metric = _METRIC.findall(query)[0]
    for grouped in re.findall(r"by \(([a-z_, ]+)\)", query):
        assert set(grouped.split(", ")) <= METRICS[metric] | {"le"}, title


def test_every_outcome_has_its_own_colour() -> None:
    (panel,) = [panel for panel in panels() if panel["title"] == "Outcomes"]
    config = panel["fieldConfig"]
    assert isinstance(config, dict)
    assert {override["matcher"]["options"] for override in config["overrides"]} == {o.value for o in Outcome}


def test_panels_have_units_words_and_a_place_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    identifiers = [panel["id"] for panel in panels()]
    assert len(identifiers) == len(set(identifiers))
    for panel in panels():
        place = panel["gridPos"]
        assert isinstance(place, dict)
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            config = panel["fieldConfig"]
            assert isinstance(config, dict)
            assert config["defaults"]["unit"], panel["title"]


def test_what_the_project_promises_is_shown() -> None:
    titles = {str(panel["title"]) for panel in panels()}
    assert {"Prewarm hit ratio", "Outcomes", "Lead time", "Wasted bytes", "Pulls in flight"} <= titles
