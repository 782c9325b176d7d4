"""The artifact: what is saved is what is loaded, and nothing is half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import projector
from projector import Projection
from projector.figures.html import write_figure
from projector.figures.trust import stress_figure
from projector.layouts.costs import arrangement_cost
from projector.layouts.solvers.arrangement import ranks_of
from projector.projection.overview import FACTS_FILE, STATISTICS_FILE, read_saved
from projector.projection.writing import check_out
from projector.statistics.example_facts import EXAMPLES_FILE
from projector.storage.additions import alone_at
from projector.storage.replacing import COMMITTED
from tests.projections import contents, edit
from tests.refused import refused, refused_by_the_disk, refused_naming

LAYOUT_FILE = "layouts/stress-3d.json"
POSITIONS_FILE = "layouts/stress-3d.safetensors"
FILES = (FACTS_FILE, LAYOUT_FILE, POSITIONS_FILE, STATISTICS_FILE, EXAMPLES_FILE)


@pytest.fixture(scope="module")
def fitted(checkpoint: Callable[[str], Path], text_file: Path) -> Projection:
    return projector.fit(str(checkpoint("qwen2")), str(text_file), max_tokens=2000, dim=3)


def test_loads_what_was_saved(fitted: Projection, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a")
    loaded = Projection.load(tmp_path / "a")
    assert loaded.facts == fitted.facts
    assert list(loaded.layouts) == list(fitted.layouts) == ["stress-3d"]
    for what in ("settings", "figures", "versions"):
        ours, theirs = (getattr(p.layout(), what) for p in (fitted, loaded))
        assert ours == theirs, what
    assert (
        loaded.maps
        == fitted.maps
        == [(layer, site) for layer in (0, 1) for site in ("mlp_post", "mlp_out", "attn_out")]
    )
    for layer, site in fitted.maps:
        for what in ("positions", "mean", "covariance", "correlation", "order"):
            ours, theirs = (getattr(p, what)(layer, site) for p in (fitted, loaded))
            assert torch.equal(ours, theirs), what
    loaded.save(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_files_are_as_documented(fitted: Projection, tmp_path: Path) -> None:
    fitted.save(tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == sorted(FILES)
    positions = load_file(tmp_path / "out" / POSITIONS_FILE)
    assert positions["layers.1.mlp_post"].shape == (40, 3)
    assert positions["layers.1.mlp_post"].dtype == torch.float32
    statistics = load_file(tmp_path / "out" / STATISTICS_FILE)
    assert statistics["layers.0.attn_out.mean"].shape == (24,)
    assert statistics["layers.0.attn_out.covariance"].shape == (24, 24)
    facts_text = (tmp_path / "out" / FACTS_FILE).read_bytes()
    layout_text = (tmp_path / "out" / LAYOUT_FILE).read_bytes()
    own = {"projection": hashlib.sha256(facts_text).hexdigest()}
    with safe_open(tmp_path / "out" / STATISTICS_FILE, framework="pt") as file:
        assert file.metadata() == own
    with safe_open(tmp_path / "out" / POSITIONS_FILE, framework="pt") as file:
        assert file.metadata() == own | {"layout": hashlib.sha256(layout_text).hexdigest()}
    facts = json.loads(facts_text)
    assert facts["format_version"] == 2
    assert "layout" not in facts
    assert set(facts["maps"]["layers.0.mlp_out"]) >= {"n_neurons", "n_tokens", "dead_neurons"}
    layout = json.loads(layout_text)
    assert layout["projection"] == own["projection"]
    assert (layout["settings"]["objective"], layout["settings"]["dim"]) == ("stress", 3)
    assert set(layout["maps"]["layers.0.mlp_out"]) >= {
        "stress",
        "stress_1",
        "rank_correlation",
        "neighbour_overlap",
        "stability",
    }
    for text in (facts_text.decode(), layout_text.decode()):
        assert str(tmp_path) not in text
        assert os.sep + "tmp" not in text


def test_correlation_comes_from_the_covariance(fitted: Projection) -> None:
    covariance = fitted.covariance(0, "mlp_post").double()
    spread = covariance.diagonal().sqrt()
    expected = covariance / spread[:, None] / spread
    torch.testing.assert_close(
        fitted.correlation(0, "mlp_post").double(), expected, atol=1e-5, rtol=0
    )


def test_orders_put_together_what_fires_together(fitted: Projection) -> None:
    rho = fitted.correlation(1, "mlp_post")
    costs = {}
    for by in ("linear", "leaf", "spectral", "index"):
        order = fitted.order(1, "mlp_post", by)
        assert sorted(order.tolist()) == list(range(40))
        costs[by] = arrangement_cost(ranks_of(order), rho)
    assert costs["linear"] <= min(costs["leaf"], costs["spectral"])
    assert max(costs["leaf"], costs["spectral"]) < costs["index"]
    with refused("order", "alphabetical", "leaf"):
        fitted.order(1, "mlp_post", "alphabetical")


def test_force_replaces_all_that_was_made_of_the_old_one(
    fitted: Projection, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fitted.save(out)
    (out / "poles").mkdir()
    # Some are cut.
    poles, layout = '{"format": "transformer-poles", "maps"', (out / LAYOUT_FILE).read_text()
    made = {
        "layouts/linear-1d.json": layout, "layouts/linear-1d.safetensors": "tensors",
        "poles.json": poles, "poles/a.json": poles, "layouts/cut.json": layout[:200],
        "positions.safetensors": "tensors",
    }  # fmt: skip
    mine = (
        "picture.html", "map-mlp_post.html", "trust.html", "notes.txt", "layouts/notes.txt",
        "projection.json.bak", "labels.json", "examples.safetensors", "layouts/mine.json",
        "layouts/mine.safetensors", "layouts/alone.safetensors", "poles/my-notes.json",
    )  # fmt: skip
    for name, text in made.items():
        (out / name).write_text(text)
    for name in mine:
        (out / name).write_text('{"mine": "<head>"}')
    # Whatever their names.
    for name in ("map-site2.html", "heatmap-layer0-site2.html", "drawn.html"):
        write_figure(stress_figure(fitted), out / name)
    with refused("force", False, out, "force=True"):
        fitted.save(out)
    bare = replace(fitted, statistics={}, example_facts=None, example_tensors={})
    bare.save(out, force=True)
    assert sorted(contents(out)) == sorted((FACTS_FILE, LAYOUT_FILE, POSITIONS_FILE, *mine))
    for name in mine:
        assert (out / name).read_text() == '{"mine": "<head>"}'
    assert not Projection.load(out).has_statistics
    assert list(Projection.load(out).layouts) == ["stress-3d"]


def test_without_statistics_positions_remain(fitted: Projection, tmp_path: Path) -> None:
    replace(fitted, statistics={}).save(tmp_path / "out")
    loaded = Projection.load(tmp_path / "out")
    assert torch.equal(loaded.positions(0, "mlp_out"), fitted.positions(0, "mlp_out"))
    with refused("keep_statistics", False, "`projector fit`"):
        loaded.correlation(0, "mlp_out")


@pytest.mark.parametrize("module", ["writing", "projection"])
def test_a_failed_write_leaves_the_old_projection(
    module: str, fitted: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    fitted.save(out)
    before = contents(out)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"projector.projection.{module}.write_tensors", fail)
    with refused_by_the_disk(errno.ENOSPC, out):
        fitted.save(out, force=True)
    assert contents(out) == before
    with refused_by_the_disk(errno.ENOSPC, tmp_path / "new"):
        fitted.save(tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_where_nothing_can_be_written_is_told_at_once(fitted: Projection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / FACTS_FILE).write_text('{"mine": 1}')
    for out, named in (
        ("file", "file"),
        ("file/below", "file"),
        ("link", "link"),
        ("foreign", f"foreign/{FACTS_FILE}"),
    ):
        with refused("out", str(tmp_path / out), f"'{tmp_path / named}'"):
            check_out(tmp_path / out, force=True)
        with refused("folder", str(tmp_path / out), f"'{tmp_path / named}'"):
            fitted.save(tmp_path / out, force=True)
    assert (tmp_path / "foreign" / FACTS_FILE).read_text() == '{"mine": 1}'


def test_tensor_files_are_as_readable_as_the_rest(fitted: Projection, tmp_path: Path) -> None:
    fitted.save(tmp_path / "out")
    assert len({(tmp_path / "out" / name).stat().st_mode for name in FILES}) == 1


def damage_json(out: Path) -> None:
    (out / FACTS_FILE).write_text('{"format"')


def make_foreign(out: Path) -> None:
    (out / FACTS_FILE).write_text('{"hello": 1}')


def make_newer(out: Path) -> None:
    facts = json.loads((out / FACTS_FILE).read_text())
    (out / FACTS_FILE).write_text(json.dumps(facts | {"format_version": 99}))


def drop_facts(out: Path) -> None:
    (out / FACTS_FILE).unlink()


def drop_positions(out: Path) -> None:
    (out / POSITIONS_FILE).unlink()


def truncate_positions(out: Path) -> None:
    whole = (out / POSITIONS_FILE).read_bytes()
    (out / POSITIONS_FILE).write_bytes(whole[: len(whole) // 2])


def swap_statistics(out: Path) -> None:
    save_file({"x": torch.zeros(1)}, out / STATISTICS_FILE, metadata={"projection": "0" * 64})


def drop_figures(out: Path) -> None:
    edit(out, layout=lambda layout: layout.pop("maps"))


def drop_corpus_tokens(out: Path) -> None:
    edit(out, facts=lambda facts: facts["corpus"].pop("n_tokens"))


def number_dead_neurons_by_name(out: Path) -> None:
    name = "layers.0.mlp_out"
    edit(out, facts=lambda facts: facts["maps"][name].update(dead_neurons=["three"]))


def drop_layouts(out: Path) -> None:
    shutil.rmtree(out / "layouts")


def swap_layout_texts(out: Path) -> None:
    layout = json.loads((out / LAYOUT_FILE).read_text())
    (out / LAYOUT_FILE).write_text(json.dumps(layout))


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (damage_json, "projection.json' & damaged & JSON"),
        (make_foreign, "projection.json' & transformer-projection"),
        (make_newer, "projection.json' & version 99 & up to 2"),
        (drop_facts, "projection.json & `projector fit`"),
        (drop_positions, "stress-3d.safetensors' & missing"),
        (truncate_positions, "stress-3d.safetensors' & damaged"),
        (swap_statistics, "statistics.safetensors' & projection.json"),
        (drop_figures, "stress-3d.json' & damaged & maps"),
        (drop_corpus_tokens, "projection.json' & damaged & corpus.n_tokens"),
        (number_dead_neurons_by_name, "projection.json' & damaged & mlp_out.dead_neurons"),
        (drop_layouts, "damaged & layouts"),
        (swap_layout_texts, "stress-3d.safetensors' & stress-3d.json"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused_in_one_line(
    fitted: Projection, tmp_path: Path, damage: Callable[[Path], None], names: str
) -> None:
    out = tmp_path / "out"
    fitted.save(out)
    damage(out)
    with refused_naming(out, *names.split(" & ")):
        Projection.load(out)


def test_unknown_layer_and_site_are_named(fitted: Projection) -> None:
    with refused("layer", 7, "0, 1"):
        fitted.positions(7, "mlp_post")
    with refused("site", "resid_pre", "mlp_post"):
        fitted.positions(0, "resid_pre")
    with refused_naming("'nowhere-at-all'", "`projector fit`"):
        Projection.load("nowhere-at-all")


def test_statistics_that_another_fit_replaced_are_not_taken_for_its_own(
    fitted: Projection, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fitted.save(out)
    opened = Projection.load(out)
    facts = replace(fitted.facts, correlation="per-sequence")
    replace(fitted, facts=facts).save(out, force=True)
    with refused_naming(out / "statistics.safetensors"):
        opened.covariance(0, "mlp_out")


def test_what_a_killed_one_left_to_move_is_moved_behind_the_lock(
    fitted: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    fitted.save(out)
    before = contents(out)

    def leave() -> None:
        (out / COMMITTED).mkdir()
        (out / COMMITTED / "notes.json").touch()
        (out / "notes.json").write_text("old")

    monkeypatch.setattr("projector.storage.additions._PATIENCE_S", 0.1)
    leave()
    with alone_at(out):
        for look in (lambda: read_saved(out), lambda: check_out(out, force=True)):
            with refused_naming(out, "seconds"):
                look()
        assert (out / "notes.json").exists()
    read_saved(out)
    assert contents(out) == before
    leave()
    check_out(out, force=True)
    assert contents(out) == before
    # Left while the lock was waited for.
    enter = projector.projection.projection.alone_at

    @contextmanager
    def alone_and_left(folder: Path) -> Iterator[None]:
        with enter(folder):
            leave()
            yield

    monkeypatch.setattr("projector.projection.projection.alone_at", alone_and_left)
    fitted.save(out, force=True)
    assert contents(out) == before


def test_figures_of_a_later_program_are_kept(fitted: Projection, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a")
    later = {"roundness": 0.5, "sharpness": None, "ring_cost": {"start": 2.0, "final": 1.0}}
    reasons = {"sharpness": "the map is round"}

    def add(layout: dict[str, Any]) -> None:
        for figures in layout["maps"].values():
            figures["reasons"] |= reasons
            figures |= later

    edit(tmp_path / "a", layout=add)
    loaded = Projection.load(tmp_path / "a")
    assert loaded.figures(0, "mlp_out")["roundness"] == 0.5
    loaded.save(tmp_path / "b")
    for figures in json.loads((tmp_path / "b" / LAYOUT_FILE).read_text())["maps"].values():
        assert {name: figures[name] for name in later} == later
        assert figures["reasons"].items() >= reasons.items()


@pytest.mark.parametrize(
    ("facts", "layout", "name"),
    [
        (lambda facts: facts["run"].update(layout={"a": 3}), None, "run.layout.a"),
        (lambda facts: facts.update(run=[]), None, ": run "),
        (None, lambda layout: layout["settings"].update(seed="x"), "settings.seed"),
        (None, lambda layout: layout["settings"].update(p=[2]), "settings.p"),
        (None, lambda layout: layout.update(number=float("nan")), "NaN"),
    ],
)
def test_what_is_said_of_a_run_and_of_settings_is_checked_where_it_is_read(
    facts: Any, layout: Any, name: str, fitted: Projection, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "out")
    edit(tmp_path / "out", facts=facts, layout=layout)
    with refused_naming(tmp_path / "out", "damaged", name):
        Projection.load(tmp_path / "out")
