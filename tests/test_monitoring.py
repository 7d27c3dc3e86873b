"""The dashboard is one that Grafana can show."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    path = Path(__file__).resolve().parents[1] / "monitoring" / "grafana-dashboard.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_every_panel_has_a_title_an_expression_and_the_source_that_is_chosen(
    dashboard: dict[str, Any],
) -> None:
    source = {"type": "prometheus", "uid": "${source}"}
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert names == {"source", "instance"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["datasource"] == source
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert 'instance=~"$instance"' in target["expr"]


def test_no_panel_covers_another(dashboard: dict[str, Any]) -> None:
    def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

    for one, other in combinations(dashboard["panels"], 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])
    assert all(x < 24 for panel in dashboard["panels"] for x, _y in cells(panel))
