"""The files for Grafana and Prometheus in ``broker/deploy`` name only metrics and labels that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.telemetry.metrics import METRICS

DEPLOY = Path(__file__).parents[2] / "broker" / "deploy"
OF_PROMETHEUS = {"instance", "job", "le"}
"""Labels that every series has, or those of a histogram's buckets."""

ROWS = {row.name: row for row in METRICS}
SERIES = {
    f"{row.name}{suffix}": row
    for row in METRICS
    for suffix in (("_bucket", "_sum", "_count") if row.kind == "histogram" else ("",))
}
"""Names of series, as they are scraped, with the row of each."""


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]
    yield from (rule["expr"] for rule in rules())


def wrong_in(expression: str) -> list[str]:
    """What an expression names that there is not: series, labels, and rates of what is no counter."""
    names = re.findall(r"\broomcast_[a-z_]+", expression)
    wrong = [name for name in names if name not in SERIES]
    known = {SERIES[name].label for name in names if name in SERIES} | OF_PROMETHEUS
    labels = [label.strip() for by in re.findall(r"\bby \(([^)]*)\)", expression) for label in by.split(",")]
    labels += re.findall(r"[{,]\s*([a-z_]+)\s*(?:=~|!=|!~|=)", expression)
    wrong += [f"label {label}" for label in labels if label not in known]
    for name in re.findall(r"\b(?:rate|increase)\((roomcast_[a-z_]+)", expression):
        if name in SERIES and SERIES[name].kind == "gauge":
            wrong.append(f"rate of the gauge {name}")
    return wrong


def test_every_expression_names_what_there_is() -> None:
    found = list(expressions())
    assert len(found) > 50
    assert {expression: wrong for expression in found if (wrong := wrong_in(expression))} == {}


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("roomcast_roms", ["roomcast_roms"]),
        ("sum by (lane) (rate(roomcast_posts_total[5m]))", ["label lane"]),
        ('roomcast_posts_total{room="a"}', ["label room"]),
        ("rate(roomcast_rooms[5m])", ["rate of the gauge roomcast_rooms"]),
        ("roomcast_publish_seconds", ["roomcast_publish_seconds"]),
        ("histogram_quantile(0.5, sum by (lane, le) (rate(roomcast_publish_seconds_bucket[5m])))", []),
    ],
)
def test_what_there_is_not_is_found(expression: str, wrong: list[str]) -> None:
    assert wrong_in(expression) == wrong


def test_panels_do_not_overlap_and_all_have_an_id() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = set()
    for panel in panels:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells, panel["title"]
                cells.add((x, y))
        assert place["x"] + place["w"] <= 24


def test_every_rule_says_what_happens_and_how_urgent_it_is() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 10
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "warning")
        assert rule["annotations"]["summary"]
