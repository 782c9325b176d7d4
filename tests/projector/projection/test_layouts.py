"""A projection grows: layouts are added in place, and version 1 can be added to as well."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import projector
from projector import Projection, add_layout
from projector.errors import SettingError
from projector.layouts.settings import Layout
from projector.layouts.solving import solve
from projector.projection.faithfulness import NOT_MEASURED
from projector.projection.overview import read_saved
from projector.projection.relaying import relayout
from tests.projections import contents, edit
from tests.refused import refused, refused_naming

GOLDEN = Path(__file__).parents[2] / "golden" / "projection-v1"
LINEAR = Layout(objective="linear")


@pytest.fixture(scope="module")
def fitted(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Not to be changed."""
    out = tmp_path_factory.mktemp("fitted") / "out"
    options = {"max_tokens": 1000, "sites": ["mlp_post"], "dim": 3}
    projector.fit(str(checkpoint("qwen2")), str(text_file), out=out, **options)
    return out


@pytest.fixture
def saved(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "saved"))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Of version 1, with statistics."""
    return Path(shutil.copytree(GOLDEN / "stress", tmp_path / "old"))


def test_a_layout_is_added_in_place_and_nothing_else_is_touched(saved: Path) -> None:
    before = contents(saved)
    name, grown = add_layout(saved, LINEAR)
    assert name == "linear-1d"
    after = contents(saved)
    added = {"layouts/linear-1d.json", "layouts/linear-1d.safetensors"}
    assert set(after) - set(before) == added
    assert {key: after[key] for key in before} == before
    loaded = Projection.load(saved)
    for projection in (grown, loaded):
        assert list(projection.layouts) == ["stress-3d", "linear-1d"]
        assert projection.dim == 3
        assert projection.positions(0, "mlp_post").shape == (40, 3)
        found = projection.positions(0, "mlp_post", "linear-1d")
        expected = solve(projection.correlation(0, "mlp_post"), LINEAR).positions
        assert torch.equal(found, expected)
        figures = projection.figures(0, "mlp_post", "linear-1d")
        assert figures.stress is None
        assert "linear" in figures.reasons["stress"]
        assert figures.stability is None
        assert "each half" in figures.reasons["stability"]
        assert figures["arrangement_cost"]["final"] <= figures["arrangement_cost"]["spectral"]
        assert projection.figures(0, "mlp_post").stability is not None
        # Of a linear layout, its own order.
        order = projection.order(0, "mlp_post", layout="linear-1d")
        assert torch.equal(order, found[:, 0].argsort(stable=True))


def test_layouts_come_in_the_order_in_which_they_were_added(saved: Path) -> None:
    for layout in (Layout(dim=2), Layout(dim=2, absolute=True), LINEAR):
        add_layout(saved, layout)
    names = ["stress-3d", "stress-2d", "stress-2d-absolute", "linear-1d"]
    assert list(Projection.load(saved).layouts) == list(read_saved(saved).layouts) == names
    # One that is replaced stays where it was.
    add_layout(saved, Layout(dim=2, seed=5), name="stress-2d", force=True)
    loaded = Projection.load(saved)
    assert list(loaded.layouts) == names
    assert loaded.layout("stress-2d").settings.seed == 5


def test_equal_additions_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(saved, tmp_path / "other"))
    for folder in (saved, other):
        add_layout(folder, Layout(dim=2))
    assert contents(saved) == contents(other)


def test_a_layout_that_exists_needs_force_and_names_are_checked(saved: Path) -> None:
    before = contents(saved)
    with refused("force", False, saved, "'stress-3d'", "force=True"):
        add_layout(saved, Layout())
    for name in ("../x", "", "a b", ".hidden", "a/b"):
        with pytest.raises(SettingError) as wrong:
            add_layout(saved, Layout(dim=2), name=name)
        assert wrong.value.setting == "name"
    with pytest.raises(SettingError) as unknown:
        Projection.load(saved).positions(0, "mlp_post", "neighbours-2d")
    assert (unknown.value.setting, unknown.value.value) == ("layout", "neighbours-2d")
    assert contents(saved) == before
    name, grown = add_layout(saved, Layout(), name="mine")
    assert (name, list(grown.layouts)) == ("mine", ["stress-3d", "mine"])


def test_without_statistics_nothing_can_be_added(saved: Path) -> None:
    bare = replace(Projection.load(saved), statistics={})
    bare.save(saved, force=True)
    before = contents(saved)
    with refused("keep_statistics", False, "`projector fit`"):
        add_layout(saved, LINEAR)
    assert contents(saved) == before


def test_a_projection_that_is_replaced_meanwhile_gets_no_layout_of_the_old_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    projection = Projection.load(saved)
    facts = replace(projection.facts, correlation="per-sequence")
    other = replace(projection, facts=facts, statistics=dict(projection.statistics))

    def while_placing(*args: object, **options: object) -> object:
        placed = lay_out(*args, **options)
        other.save(saved, force=True)
        return placed

    from projector.projection import relaying

    lay_out = relaying.lay_out
    monkeypatch.setattr(relaying, "lay_out", while_placing)
    with refused_naming(f"'{saved}'"):
        add_layout(saved, LINEAR)
    assert list(Projection.load(saved).layouts) == ["stress-3d"]


def test_what_is_replaced_while_it_is_read_is_read_again(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from projector.projection import overview

    projection = Projection.load(saved)
    facts = replace(projection.facts, correlation="per-sequence")
    other = replace(projection, facts=facts, statistics=dict(projection.statistics))
    read_json, n_read = overview.read_json, 0

    def read_and_replace(path: Path) -> object:
        nonlocal n_read
        n_read += 1
        content = read_json(path)
        if n_read == 1:
            other.save(saved, force=True)
        return content

    monkeypatch.setattr(overview, "read_json", read_and_replace)
    assert Projection.load(saved).facts == facts


def _add(folder: Path, dim: int) -> None:
    torch.set_num_threads(1)
    add_layout(folder, Layout(dim=dim))


def test_two_processes_that_add_layouts_at_once_both_succeed(saved: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add, args=(saved, dim)) for dim in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(200)
        assert worker.exitcode == 0
    loaded = Projection.load(saved)
    assert set(loaded.layouts) == {"stress-3d", "stress-1d", "stress-2d"}
    numbers = [layout.number for layout in read_saved(saved).layouts.values()]
    assert numbers == [0, 1, 2]


def test_relayout_makes_a_projection_of_one_layout(saved: Path, tmp_path: Path) -> None:
    add_layout(saved, LINEAR)
    made = relayout(Projection.load(saved), Layout(dim=2))
    made.save(tmp_path / "new")
    loaded = Projection.load(tmp_path / "new")
    assert list(loaded.layouts) == ["stress-2d"]
    assert loaded.has_statistics


# Version 1


@pytest.mark.parametrize(
    ("kind", "name", "dim"), [("stress", "stress-2d", 2), ("linear", "linear-1d", 1)]
)
def test_version_1_is_read(kind: str, name: str, dim: int) -> None:
    folder = GOLDEN / kind
    content = json.loads((folder / "projection.json").read_text())
    assert content["format_version"] == 1
    loaded = Projection.load(folder)
    assert read_saved(folder).version == 1
    assert list(loaded.layouts) == [name]
    assert loaded.maps == [(i, site) for i in (0, 1) for site in ("mlp_post", "mlp_out")]
    assert loaded.dim == dim
    assert loaded.facts.model.id == content["model"]["id"]
    assert loaded.facts.corpus is not None
    assert loaded.facts.corpus.n_tokens == content["corpus"]["n_tokens"] == 1200
    assert loaded.layout().settings.method == content["layout"]["method"]
    assert loaded.has_statistics == (kind == "stress")
    for (layer, site), n in zip(loaded.maps, (40, 24, 40, 24), strict=True):
        assert loaded.positions(layer, site).shape == (n, dim)
        figures = loaded.figures(layer, site)
        # As they were saved, whatever the version; what it lacks is null with the reason.
        saved = content["maps"][f"layers.{layer}.{site}"]
        lacking = {"organisation": None, "organisation_reason": NOT_MEASURED}
        assert figures.as_dict() == saved | lacking
    assert loaded.figures(0, "mlp_post").dead_neurons == (5,)
    assert loaded.positions(0, "mlp_post").isnan().any(dim=1).nonzero().tolist() == [[5]]
    if kind == "stress":
        rho = loaded.correlation(1, "mlp_out")
        assert rho.shape == (24, 24)
        assert rho.abs().max() <= 1


def test_version_1_is_added_to_and_its_own_files_stay(old: Path) -> None:
    before = contents(old)
    add_layout(old, LINEAR)
    after = contents(old)
    assert {key: after[key] for key in before} == before
    loaded = Projection.load(old)
    assert list(loaded.layouts) == ["stress-2d", "linear-1d"]
    assert loaded.positions(1, "mlp_out", "linear-1d").shape == (24, 1)
    with refused("force", False, old, "'stress-2d'"):
        add_layout(old, Layout(dim=2))
    # Its own is replaced by one beside it.
    add_layout(old, Layout(dim=2, seed=3), name="stress-2d", force=True)
    after = contents(old)
    assert {key: after[key] for key in before} == before
    loaded = Projection.load(old)
    assert list(loaded.layouts) == ["stress-2d", "linear-1d"]
    assert loaded.layout().settings.seed == 3


def test_version_1_is_saved_as_the_newest(old: Path, tmp_path: Path) -> None:
    first = Projection.load(old)
    first.save(tmp_path / "new")
    again = Projection.load(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "projection.json").read_text())["format_version"] == 2
    assert again.facts == first.facts
    assert again.layout().figures == first.layout().figures
    for key in first.maps:
        for what in ("positions", "covariance"):
            ours, theirs = (getattr(p, what)(*key) for p in (first, again))
            assert torch.equal(ours.nan_to_num(9), theirs.nan_to_num(9))
    # And in the place of the old one, of which nothing is left.
    replace(again, statistics=dict(again.statistics)).save(old, force=True)
    assert contents(old) == contents(tmp_path / "new")


def test_a_figure_that_an_older_map_lacks_is_absent_with_a_reason(old: Path, saved: Path) -> None:
    name = "layers.0.mlp_post"
    edit(old, facts=lambda facts: facts["maps"][name].pop("chance_overlap"))
    edit(saved, layout=lambda layout: layout["maps"][name].pop("chance_overlap"))
    for folder in (old, saved):
        figures = Projection.load(folder).figures(0, "mlp_post")
        assert figures.chance_overlap is None
        assert figures.reasons["chance_overlap"] == NOT_MEASURED
        assert figures["chance_overlap"] is None
        assert figures.stress is not None


def test_figures_are_a_record_and_a_mapping(saved: Path) -> None:
    figures = Projection.load(saved).figures(0, "mlp_post")
    assert figures.n_neurons == figures["n_neurons"] == 40
    assert figures.stress == figures["stress"] == dict(figures)["stress"]
    assert figures.get("sample") is None
    assert list(figures) == list(figures.as_dict())
    with pytest.raises(AttributeError, match="'tress'"):
        _ = figures.tress
    with pytest.raises(KeyError):
        _ = figures["tress"]


def test_a_layout_of_another_projection_is_told_with_what_to_do(old: Path, saved: Path) -> None:
    add_layout(old, LINEAR)
    for name in ("linear-1d.json", "linear-1d.safetensors"):
        shutil.copy(old / "layouts" / name, saved / "layouts" / name)
    with refused_naming(saved / "layouts" / "linear-1d.json"):
        Projection.load(saved)
