"""An attribution as a page."""

from __future__ import annotations

import pytest

from projector.figures.residual.attribution import (
    attribution_page,
    bars_figure,
    grid_figure,
    signed,
)
from projector.residual.logits.records import AttributedPart, Attribution, Step


def part(name: str, kind: str, value: float, **where: int) -> AttributedPart:
    more = {"layer": None, "head": None, "neuron": None} | where
    return AttributedPart(name=name, kind=kind, value=value, **more, control_mean=0.5, control_sd=1)


@pytest.fixture
def found() -> Attribution:
    parts = (
        part("embedding", "embedding", 1.0),
        part("L0 H0", "head", 2.0, layer=0, head=0),
        part("L0 H1", "head", -3.0, layer=0, head=1),
        part("L0 MLP", "mlp", 4.0, layer=0),
        part("L1 H0", "head", 0.25, layer=1, head=0),
        part("L1 MLP", "mlp", -5.5, layer=1),
        AttributedPart("softcap", "softcap", None, None, None, 0.5),
    )
    return Attribution(
        model="a<b>",
        ids=(0, 1),
        texts=("<|endoftext|>", "<script>alert(1)</script>"),
        position=1,
        token=2,
        token_text=" <i>x",
        against=None,
        against_text=None,
        logit=-0.75,
        probability=0.25,
        top=((" <i>x", 2, 0.25),),
        parts=parts,
        neurons=(part("L0 N3", "neuron", 3.0, layer=0, neuron=3),),
        neurons_left_out=None,
        steps=(Step("parts of the stream", -1.25, -1.25), Step("softcap", 0.5, -0.75)),
        scale=1.0,
        softcap=30.0,
        n_controls=64,
        additivity_error=2e-7,
        step_error=2e-7,
        closure_error=3e-7,
        closure_bound=1e-5,
    )


def test_the_page_tells_what_adds_up_and_escapes_all_text(found: Attribution) -> None:
    page = attribution_page(found)
    assert "<script>alert" not in page
    assert "<i>x" not in page
    assert "a<b>" not in page
    assert "‘␣&lt;i&gt;x’" in page
    for text in (
        "−5.5000",
        "−0.7500",
        "3.0e−07",
        "before the cap",
        "−0.750",
        "L0 N3",
        "random tokens",
    ):
        assert text in page


def test_the_grid_has_a_row_a_layer_and_a_scale_that_is_symmetric(found: Attribution) -> None:
    figure = grid_figure(found)
    (trace,) = figure.data
    assert list(trace.x) == ["H0", "H1", "MLP"]
    assert list(trace.y) == ["L0", "L1"]
    assert trace.z[0].tolist() == [2.0, -3.0, 4.0]
    assert trace.z[1][[0, 2]].tolist() == [0.25, -5.5]
    assert trace.zmin == -trace.zmax < 0


def test_bars_tell_raising_from_lowering(found: Attribution) -> None:
    bars = bars_figure(found.strongest(3)).data[0]
    assert list(bars.customdata) == ["L1 MLP", "L0 MLP", "L0 H1"]
    assert list(bars.y) == ["L1 MLP  −5.50", "L0 MLP  +4.00", "L0 H1  −3.00"]
    assert list(bars.x) == [-5.5, 4.0, -3.0]
    colours = list(bars.marker.color)
    assert colours[0] == colours[2] != colours[1]


def test_signed_numbers() -> None:
    assert [signed(v, 2) for v in (1.234, -1.234, 0.0, -0.001)] == [
        "+1.23",
        "−1.23",
        "0.00",
        "0.00",
    ]
