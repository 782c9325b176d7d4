"""One record makes a figure of trust: commands, JSON, pictures and pages read it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import projector
from dashboard.drawing.trust import trust_figures
from projector.figures.trust import stress_figure
from projector.figures.words import map_title, trust_text
from projector.projection.faithfulness import FIGURES, Figure, register_figure
from projector.terminal.cli import app

CROWDING = Figure(
    "crowding",
    # What computes in tensors gives one.
    lambda measured: measured.points.new_tensor(measured.n / 7),
    better="low",
    factor=7,
    pattern="{:.2f}",
    column="crowd",
    legend="how many crowd the map",
    sentence="{crowding:.1f} crowd it",
    strip="crowding: neurons on the map",
    title="Crowding",
    value="{crowding:.0f} neurons",
    meaning="So many stand in {dim} dimensions.",
)


@pytest.fixture
def projection(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> projector.Projection:
    return projector.fit(
        str(checkpoint("qwen2")),
        str(text_file),
        layers=[0],
        sites=["mlp_post"],
        dim=3,
        device="cpu",
        out=tmp_path / "fitted",
    )


@pytest.fixture
def crowding() -> Iterator[Figure]:
    register_figure(CROWDING)
    yield CROWDING
    del FIGURES[CROWDING.name]


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_registered_figure_is_told_everywhere(
    crowding: Figure, projection: projector.Projection, tmp_path: Path
) -> None:
    figures = projection.figures(0, "mlp_post")
    n = round(figures["crowding"] * 7)
    assert n == figures.n_neurons - len(figures.dead_neurons)
    told = run("info", tmp_path / "fitted")
    assert "crowd" in told
    assert f"{n:.2f}" in told
    assert CROWDING.legend in told
    saved = json.loads(run("info", tmp_path / "fitted", "--json"))["maps"][0]
    assert saved["crowding"] == pytest.approx(n / 7)
    assert f"{n:.1f} crowd it" in trust_text(figures)
    assert f"{n:.1f} crowd it" in map_title(projection, 0, "mlp_post")
    picture = stress_figure(projection)
    titles = [each.text for each in picture.layout.annotations]
    assert any(title.startswith(CROWDING.strip) for title in titles)
    assert f"{n:.2f}" in str(picture.data[titles.index(titles[-1])].customdata)
    page = {each.name: each for each in trust_figures(figures, None, 3)}
    assert page["Crowding"].value == f"{n} neurons"
    assert "3 dimensions" in page["Crowding"].meaning


def test_a_projection_from_before_a_figure_shows_it_absent_with_a_reason(
    projection: projector.Projection, tmp_path: Path
) -> None:
    register_figure(CROWDING)
    try:
        before = projector.Projection.load(tmp_path / "fitted")
        figures = before.figures(0, "mlp_post")
        assert figures["crowding"] is None
        reason = figures["reasons"]["crowding"]
        assert reason
        assert "crowd it" not in trust_text(figures)
        assert "crowd" in run("info", tmp_path / "fitted")
        saved = json.loads(run("info", tmp_path / "fitted", "--json"))["maps"][0]
        assert saved["crowding"] is None
        assert reason in str(stress_figure(before).data[-1].customdata)
        page = {each.name: each for each in trust_figures(figures, None, 3)}
        assert page["Crowding"].value == "–"
        assert reason in page["Crowding"].meaning
        # One that was in memory when the figure was registered lacks it too.
        assert projection.figures(0, "mlp_post").get("crowding") is None
        assert trust_figures(projection.figures(0, "mlp_post"), None, 3)
    finally:
        del FIGURES[CROWDING.name]
