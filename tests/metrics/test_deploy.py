"""The dashboard and the alert rules name only what is exported, with labels that it has."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from oncue import OnCue
from oncue.exposition import Exposition
from oncue.fleet import look

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/oncue.json"
RULES = ROOT / "deploy/prometheus/alerts.yml"
_NAME = re.compile(r"\boncue_[a-z_]+")
_SELECTOR = re.compile(r"\b(oncue_[a-z_]+)\{([^}]*)\}")
# What Prometheus itself adds to what it scrapes.
_ADDED = {"job", "instance", "le"}
Names = dict[str, set[str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Names:
    """The labels by the name of what a query can ask for."""
    app = OnCue(f"sqlite:///{tmp_path_factory.mktemp('deploy') / 'jobs.db'}")

    async def collect() -> list[Metric]:
        async with app:
            return list(Exposition(app, await look(app)).collect())

    families = asyncio.run(collect())
    return {name: labels_of(one) for one in families for name in names_of(one)}


def names_of(family: Metric) -> list[str]:
    if family.type == "counter":
        return [f"{family.name}_total"]
    if family.type == "histogram":
        return [f"{family.name}_{part}" for part in ("bucket", "sum", "count")]
    return [family.name]


def labels_of(family: Metric) -> set[str]:
    return set(family._labelnames)  # type: ignore[attr-defined]


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield panel
        yield from panel.get("panels", ())


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())] + [
        rule["expr"] for rule in rules()
    ]


def test_every_metric_that_is_asked_for_is_exported_with_these_labels(exported: Names) -> None:
    asked = queries()
    assert len(asked) > 40
    for query in asked:
        names = set(_NAME.findall(query))
        assert names, query
        assert names <= exported.keys(), query
        for name, selector in _SELECTOR.findall(query):
            assert set(re.findall(r"([a-z_]+)=", selector)) <= exported[name] | _ADDED, query
        by = {label.strip() for part in re.findall(r"by \(([^)]*)\)", query) for label in part.split(",")}
        assert by <= set.union(_ADDED, *(exported[name] for name in names)), query
        assert query.count("(") == query.count(")"), query


def test_the_dashboard_shows_all_that_is_exported(exported: Names) -> None:
    shown = {name for query in queries() for name in _NAME.findall(query)}

    assert exported.keys() - shown <= {"oncue_duration_seconds_sum", "oncue_duration_seconds_count"}


def test_the_page_on_monitoring_explains_all_that_is_exported(exported: Names) -> None:
    page = (ROOT / "docs/how-to/monitoring.md").read_text()
    told = {name: line for line in page.splitlines() if line.startswith("| `oncue_") for name in _NAME.findall(line)}

    families = {re.sub("_seconds_(bucket|sum|count)$", "_seconds", name): labels for name, labels in exported.items()}
    assert told.keys() == families.keys()
    for name, labels in families.items():
        assert all(f"`{label}`" in told[name] for label in labels), name


def test_every_panel_has_a_place_of_its_own() -> None:
    found = list(panels())
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule
        assert rule["annotations"]["summary"].endswith("."), rule
        assert len(rule["annotations"]["description"]) > 20, rule
        labels = re.findall(r"\$labels\.([a-z]+)", rule["annotations"]["summary"])
        assert all(label in rule["expr"] for label in labels), rule
