"""What a person reads on the plots."""

from __future__ import annotations

import json
from pathlib import Path

from fastzsl.report import plots


def test_the_loss_axis_shows_numbers_not_formulas(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    lines = [{"step": i, "classification": 1e4 / i**2, "loss": 1e4 / i**2} for i in range(1, 200)]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = plots.loss_curves(metrics)
    assert figure is not None
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "100" in labels
    assert not any("$" in label for label in labels)


def test_the_ranking_puts_the_best_method_on_top() -> None:
    methods = {
        name: {"T1": [value], "H": [value / 2]} for name, value in (("a", 0.2), ("b", 0.9), ("c", 0.5))
    }
    figure = plots.ranking("three", methods)
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "c", "b"], "from the bottom up"
    assert plots.ranking("one", {"a": methods["a"]}) is None
