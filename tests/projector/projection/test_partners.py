"""Files of partners across layers: what belongs together, and what is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import projector
from projector import Projection
from projector.errors import UserError
from projector.projection.overview import read_saved
from projector.projection.partners.files import read_partners, tensors_metadata
from projector.statistics.cross_layer.partners import level_of
from projector.storage.tensors import TensorFile, write_tensors
from projector.terminal.cli import main
from tests.projections import edit


@pytest.fixture(scope="module")
def fitted(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path], text_file: Path
) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "out"
    projector.fit(
        str(checkpoint("opt")),
        str(text_file),
        out=out,
        sites=["mlp_post"],
        max_tokens=600,
        keep_examples=False,
        layouts="linear-1d",
        cross_layer=True,
    )
    return out


@pytest.fixture
def folder(fitted: Path, tmp_path: Path) -> Path:
    """A projection that a test may damage."""
    return Path(shutil.copytree(fitted, tmp_path / "out"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_dead_neurons_of_a_real_model_have_no_partners(folder: Path) -> None:
    projection = Projection.load(folder)
    for layer, others in ((0, "later"), (1, "earlier")):
        dead = projection.figures(layer, "mlp_post")["dead_neurons"]
        rho = getattr(projection.partners(layer), others).rho
        assert set(dead) <= set((~rho.isfinite()).all(dim=1).nonzero()[:, 0].tolist())
        facts = projection.cross_layer
        assert facts is not None
        assert facts.n_undefined[layer] >= len(dead)
        assert rho.isfinite().any()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "partners.json").write_text("{"),
        lambda folder: (folder / "partners.safetensors").unlink(),
        lambda folder: (folder / "partners.safetensors").write_bytes(b"cut"),
        lambda folder: change(folder / "partners.json", n_tokens=5),
        lambda folder: change(folder / "partners.json", format_version=9),
        lambda folder: change(folder / "partners.json", pairs=[]),
        # Another projection's.
        lambda folder: edit(folder, facts=lambda facts: facts["versions"].update(python="9")),
    ],
)
def test_damaged_partners_are_told_and_all_else_can_be_read(
    damage: Callable[[Path], Any], folder: Path
) -> None:
    damage(folder)
    projection = Projection.load(folder)
    assert projection.cross_layer is None
    assert projection.correlation(0, "mlp_post").shape == (40, 40)
    with pytest.raises(UserError) as refused:
        projection.partners(0)
    assert refused.value.setting == "cross_layer"
    with pytest.raises(UserError) as refused:
        read_partners(read_saved(folder))
    assert refused.value.setting == "cross_layer"


def test_partners_of_format_version_1_are_read_without_a_control(folder: Path) -> None:
    path = folder / "partners.safetensors"
    tensors = TensorFile(path)
    old = {name: tensors[name].clone() for name in tensors if not name.endswith("_rotated")}
    facts = json.loads((folder / "partners.json").read_text())
    del facts["has_controls"]
    del facts["pairs"][0]["n_distinct"]
    (folder / "partners.json").write_text(json.dumps(facts | {"format_version": 1}))
    write_tensors(path, old, tensors_metadata(read_saved(folder)))
    for projection in (Projection.load(folder), saved_again(folder)):
        assert projection.cross_layer is not None
        assert not projection.cross_layer.has_controls
        assert projection.cross_layer.pair(0, 1).n_distinct is None
        found = projection.partners(1).earlier
        assert found.rotated is None
        assert level_of(found) is None
        rho = old["layers.1.mlp_post.earlier_rho"]
        torch.testing.assert_close(found.rho, rho, equal_nan=True)


def saved_again(folder: Path) -> Projection:
    copy = folder.with_name("again")
    Projection.load(folder).save(copy)
    return Projection.load(copy)


def test_partners_stay_with_a_projection_that_is_saved_elsewhere(
    folder: Path, tmp_path: Path
) -> None:
    loaded = Projection.load(folder)
    loaded.save(tmp_path / "copy")
    copy = Projection.load(tmp_path / "copy")
    assert copy.cross_layer == loaded.cross_layer
    for layer in (0, 1):
        ours, theirs = copy.partners(layer), loaded.partners(layer)
        assert torch.equal(ours.earlier.neuron, theirs.earlier.neuron)
        assert torch.equal(ours.later.layer, theirs.later.layer)
    with pytest.raises(UserError) as refused:
        copy.partners(7)
    assert (refused.value.setting, refused.value.value) == ("layer", 7)


def test_info_shows_the_pairs_beside_both_controls(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["projector", "info", str(folder)])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    pair = Projection.load(folder).cross_layer.pair(0, 1)  # type: ignore[union-attr]
    assert pair.best is not None
    assert pair.rotated is not None
    assert pair.shuffled is not None
    line = next(line for line in said.splitlines() if f"{pair.best.median:.3f}" in line)
    for level in (pair.best, pair.rotated, pair.shuffled):
        assert f"{level.median:.3f}" in line
        assert f"{level.percentile_95:.3f}" in line
    assert "rotated" in said
    assert "shuffled" in said
    monkeypatch.setattr("sys.argv", ["projector", "info", str(folder), "--json"])
    with pytest.raises(SystemExit):
        main()
    found = json.loads(capsys.readouterr().out)["cross_layer"]
    assert found["pairs"][0]["best"]["median"] == pair.best.median
