"""Fits of several layouts: the model runs once, and every map is placed by each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import projector
from projector.errors import SettingError
from projector.fitting.settings import choose_layouts, split_options
from projector.layouts.settings import Layout
from projector.projection.projection import Projection
from projector.statistics.gathering import Gatherer

OPTIONS: dict[str, Any] = {"sites": ["attn_out", "mlp_out"], "layers": [0], "max_tokens": 600}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_layouts_by_name_or_one_by_its_settings() -> None:
    named = choose_layouts("stress-3d,neighbours-2d", {})
    assert named == (Layout(), Layout(objective="neighbours", dim=2))
    assert choose_layouts(["stress-3d", Layout(dim=2)], {}) == (Layout(), Layout(dim=2))
    assert choose_layouts(None, {"objective": "linear"}) == (Layout(objective="linear"),)
    # What all usual layouts have, alone, is of all of them.
    assert choose_layouts(None, {"seed": 1, "start": "normal", "absolute": True}) == tuple(
        Layout(objective=objective, dim=dim, seed=1, start="normal", absolute=True)
        for objective, dim in (("stress", 3), ("neighbours", 2))
    )
    assert choose_layouts(None, {"seed": 1, "dim": 3}) == (Layout(seed=1),)
    settings, layouts = split_options({"max_tokens": 500, "layouts": ["linear-1d"]})
    assert settings.max_tokens == 500
    assert layouts == (Layout(objective="linear"),)


@pytest.mark.parametrize(
    ("layouts", "given"),
    [
        ("stress-3d", {"dim": 2}),
        ("stress-3d,stress-3d", {}),
        (["stress-3d", Layout()], {}),
        ([], {}),
        ("stress-3d-adamw,stress-2d-adamw", {}),
    ],
)
def test_layouts_that_do_not_go_together(layouts: Any, given: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as refused:
        choose_layouts(layouts, given)
    assert refused.value.setting == "layouts"


def test_several_layouts_are_those_of_single_fits_from_one_run_of_the_model(
    checkpoint: Callable[[str], Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = (str(checkpoint("qwen2")), str(text_file))
    n_batches = []
    run = Gatherer.run
    monkeypatch.setattr(
        Gatherer, "run", lambda self, *batch: (n_batches.append(1), run(self, *batch))[1]
    )
    names = ["stress-3d", "linear-1d", "stress-2d-adamw"]
    projector.fit(*arguments, out=tmp_path / "all", layouts=",".join(names), **OPTIONS)
    once = len(n_batches)
    together = Projection.load(tmp_path / "all")
    assert list(together.layouts) == names
    for name in names:
        n_batches.clear()
        alone = projector.fit(*arguments, layouts=[name], **OPTIONS)
        assert len(n_batches) == once
        for key in together.maps:
            assert torch.equal(together.positions(*key, name), alone.positions(*key))
            assert together.figures(*key, name).as_dict() == alone.figures(*key).as_dict()


def test_a_fit_of_several_layouts_goes_on_to_the_same_bytes(
    checkpoint: Callable[[str], Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = (str(checkpoint("qwen2")), str(text_file))
    options = {**OPTIONS, "layouts": "stress-2d,stress-3d-adamw,linear-1d"}
    projector.fit(*arguments, out=tmp_path / "whole", **options)
    place_map = projector.fitting.running.place_map
    n_placed = []

    def stopped(*args: Any, **given: Any) -> Any:
        if n_placed:
            raise KeyboardInterrupt
        n_placed.append(1)
        return place_map(*args, **given)

    with monkeypatch.context() as patch:
        patch.setattr("projector.fitting.running.place_map", stopped)
        with pytest.raises(KeyboardInterrupt):
            projector.fit(*arguments, out=tmp_path / "stopped", **options)
    assert not (tmp_path / "stopped").exists()
    projector.fit(*arguments, out=tmp_path / "stopped", resume=True, **options)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
