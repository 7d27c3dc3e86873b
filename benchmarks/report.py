"""What every benchmark ends with: figures on stdout, all of them in a JSON file, and a chart.

Charts need matplotlib (the extra `benchmarks` of setup.cfg); without it everything else works.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_targets(parser: argparse.ArgumentParser) -> None:
    """The options that `finish` reads."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw them there (.png)")


def finish(result: dict[str, Any], text: str, options: argparse.Namespace, *panels: Panel) -> None:
    """Print the report; write the figures and draw the panels side by side, as the options wish.

    Args:
        result: all figures; `machine` is what `engine.machine` says.
        text: the report.
        options: those of `add_targets`.
        panels: of the chart.
    """
    print(text)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.chart is not None:
        found = result["machine"]
        draw(options.chart, f"{found['cpu']}, {found['cores']} cores", *panels)


class Panel:
    """Bars: a group for each row, a colour for each name."""

    def __init__(self, title: str, unit: str, rows: Mapping[str, Mapping[str, float]]) -> None:
        """Take the figures.

        Args:
            title: of the panel.
            unit: of its figures.
            rows: name of the group → name of the bar → figure; not every group needs every bar.
        """
        self.title = title
        self.unit = unit
        self.rows = rows


def draw(target: Path, footer: str, *panels: Panel) -> None:
    """Draw the panels; without matplotlib say so and draw nothing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print(f"{target} is not drawn: pip install matplotlib", file=sys.stderr)
        return
    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        names = list(dict.fromkeys(name for row in panel.rows.values() for name in row))
        width = 0.8 / len(names)
        for index, name in enumerate(names):
            places = [place for place, row in enumerate(panel.rows.values()) if name in row]
            left = [place + (index - (len(names) - 1) / 2) * width for place in places]
            heights = [row[name] for row in panel.rows.values() if name in row]
            texts = [f"{height:.3g}" if height < 1000 else f"{height:.0f}" for height in heights]
            axes.bar_label(axes.bar(left, heights, width, label=name), texts, fontsize=8)
        axes.set_xticks(range(len(panel.rows)), list(panel.rows), fontsize=8)
        axes.margins(y=0.25)  # room for the legend
        axes.set_title(panel.title, fontsize=10)
        axes.set_ylabel(panel.unit)
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axes.legend(fontsize=8, frameon=False)
    figure.supxlabel(footer, fontsize=6)
    figure.savefig(target, dpi=110)
