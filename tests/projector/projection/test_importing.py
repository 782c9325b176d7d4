"""Positions trained elsewhere: a checkpoint of the layout written by Accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from projector.errors import UserError
from projector.model.hashing import hash_checkpoint
from projector.projection.facts import ModelFacts
from projector.projection.importing import import_checkpoint
from projector.projection.projection import Projection
from tests.families import N_HIDDEN, N_LAYERS
from tests.refused import lacking, refused

FIGURES = (
    "stress",
    "stress_1",
    "rank_correlation",
    "neighbour_overlap",
    "chance_overlap",
    "stability",
    "correlation_stability",
)


@pytest.fixture(scope="module", autouse=True)
def _without_bars() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture
def model(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("qwen2")


def positions(dim: int = 3, n: int = N_HIDDEN, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def write(folder: Path, tensors: dict[str, Tensor]) -> Path:
    path = folder / "made-up.safetensors"
    save_file(tensors, path)
    return path


def refusal(path: Path, model: Path | str) -> str:
    """The one line that importing ``path`` is refused with."""
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, str(model))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_positions_come_back_as_they_were(tmp_path: Path, model: Path) -> None:
    """Through a Projection, saved and loaded: the sites, the layers, and every number."""
    tensors = {
        "model.layers.0.mlp.neuron_projections": positions(seed=1),
        "model.layers.1.mlp.neuron_projections": positions(seed=2),
        "layers.1.self_attn.neuron_projections": positions(seed=3),
        # Of the model itself: passed over.
        "model.layers.0.mlp.up_proj.weight": torch.ones(3, 2),
        "model.layers.0.mlp.neuron_projections.scale": torch.ones(3),
    }
    made = import_checkpoint(write(tmp_path, tensors), str(model))
    made.save(tmp_path / "out")
    loaded = Projection.load(tmp_path / "out")
    for projection in (made, loaded):
        assert projection.sites == ["mlp_out", "attn_out"]
        assert projection.layers == [0, 1]
        assert projection.maps == [(0, "mlp_out"), (1, "mlp_out"), (1, "attn_out")]
        assert projection.dim == 3
        assert not projection.has_statistics
        assert torch.equal(projection.positions(0, "mlp_out"), positions(seed=1))
        assert torch.equal(projection.positions(1, "mlp_out"), positions(seed=2))
        assert torch.equal(projection.positions(1, "attn_out"), positions(seed=3))
    assert loaded.facts == made.facts


def test_where_positions_are_from_is_kept(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path, {"layers.1.self_attn.neuron_projections": positions(dim=2)})
    projection = import_checkpoint(path, str(model))
    facts = projection.facts
    assert facts.model == ModelFacts(
        id="qwen2",
        sha256=hash_checkpoint(model),
        dtype="float32",
        is_causal=True,
        n_layers=N_LAYERS,
    )
    assert facts.corpus is None
    assert facts.correlation is None
    assert (facts.sites, facts.layers) == (("attn_out",), (1,))
    assert list(projection.layouts) == ["stress-2d-imported"]
    settings = projection.layout().settings
    assert (settings.dim, settings.method) == (2, "imported")


def test_what_needs_correlations_is_null_and_says_why(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path, {"layers.0.mlp.neuron_projections": positions()})
    projection = import_checkpoint(path, str(model))
    projection.save(tmp_path / "out")
    figures = Projection.load(tmp_path / "out").figures(0, "mlp_out")
    assert figures["n_neurons"] == N_HIDDEN
    assert figures["n_tokens"] is None
    for name in FIGURES:
        assert figures[name] is None
        assert "correlations" in figures["reasons"][name]
    with refused("keep_statistics", False, "`projector fit`"):
        projection.correlation(0, "mlp_out")


def test_undefined_positions_are_undefined_neurons(tmp_path: Path, model: Path) -> None:
    given = positions()
    given[5] = float("nan")
    given[7, 1] = float("inf")
    path = write(tmp_path, {"layers.0.mlp.neuron_projections": given})
    projection = import_checkpoint(path, str(model))
    assert projection.figures(0, "mlp_out")["dead_neurons"] == [5, 7]
    found = projection.positions(0, "mlp_out")
    # A position is defined or it is not: no coordinate is left of a broken one.
    assert found.isnan().any(dim=1).nonzero()[:, 0].tolist() == [5, 7]
    assert found[7].isnan().all()
    rest = [i for i in range(N_HIDDEN) if i not in (5, 7)]
    assert torch.equal(found[rest], given[rest])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floats_become_float32(tmp_path: Path, model: Path, dtype: torch.dtype) -> None:
    given = positions().to(dtype)
    path = write(tmp_path, {"layers.0.mlp.neuron_projections": given})
    found = import_checkpoint(path, str(model)).positions(0, "mlp_out")
    assert found.dtype == torch.float32
    assert torch.equal(found, given.float())


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_any_dimension_is_read(tmp_path: Path, model: Path, dim: int) -> None:
    path = write(tmp_path, {"layers.0.mlp.neuron_projections": positions(dim=dim)})
    projection = import_checkpoint(path, str(model))
    assert projection.dim == dim
    assert torch.equal(projection.positions(0, "mlp_out"), positions(dim=dim))


def test_a_pickled_file_is_refused_unread(tmp_path: Path, model: Path) -> None:
    marker = tmp_path / "executed"

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (marker,)

    path = tmp_path / "made-up.bin"
    torch.save({"layers.0.mlp.neuron_projections": Harmful()}, path)
    message = refusal(path, model)
    assert lacking(message, path, "safetensors") == []
    assert not marker.exists()


def test_a_truncated_file_is_refused(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path, {"layers.0.mlp.neuron_projections": positions()})
    path.write_bytes(path.read_bytes()[:-10])
    assert lacking(refusal(path, model), path, "safetensors") == []


@pytest.mark.parametrize(
    "key",
    [
        "layers.0.mlp.up_proj.weight",
        "layers.0.mlp.neuron_projections.weight",
        "layers.x.mlp.neuron_projections",
        "layers.0.cross_attn.neuron_projections",
        "mylayers.0.mlp.neuron_projections",
    ],
)
def test_a_file_without_positions_is_refused(tmp_path: Path, model: Path, key: str) -> None:
    message = refusal(write(tmp_path, {key: positions()}), model)
    assert "layers.<i>.mlp.neuron_projections" in message


def test_a_wrong_width_is_refused_with_both_numbers(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path, {"layers.1.mlp.neuron_projections": positions(n=N_HIDDEN + 1)})
    message = refusal(path, model)
    for part in ("layer 1 mlp_out", f"{N_HIDDEN + 1} positions", f"{N_HIDDEN} neu"):
        assert part in message


def test_a_layer_that_the_model_lacks_is_refused(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path, {f"layers.{N_LAYERS}.mlp.neuron_projections": positions()})
    message = refusal(path, model)
    assert lacking(message, f"layer {N_LAYERS}", f"0 to {N_LAYERS - 1}") == []


def test_mixed_dimensions_are_refused(tmp_path: Path, model: Path) -> None:
    path = write(
        tmp_path,
        {
            "layers.0.mlp.neuron_projections": positions(dim=3),
            "layers.1.mlp.neuron_projections": positions(dim=2),
        },
    )
    assert lacking(refusal(path, model), path, "[2, 3]") == []


def test_the_same_layer_twice_is_refused(tmp_path: Path, model: Path) -> None:
    path = write(
        tmp_path,
        {
            "a.layers.0.mlp.neuron_projections": positions(seed=1),
            "b.layers.0.mlp.neuron_projections": positions(seed=2),
        },
    )
    assert "layer 0 mlp_out" in refusal(path, model)


@pytest.mark.parametrize(
    "wrong", [torch.ones(N_HIDDEN), torch.ones(N_HIDDEN, 3, 1), torch.ones(N_HIDDEN, 3).long()]
)
def test_what_is_no_table_of_floats_is_refused(tmp_path: Path, model: Path, wrong: Tensor) -> None:
    message = refusal(write(tmp_path, {"layers.0.mlp.neuron_projections": wrong}), model)
    assert "layers.0.mlp.neuron_projections" in message
    assert str(tuple(wrong.shape)) in message
    assert "(neurons, d)" in message


def test_positions_without_coordinates_are_refused(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path, {"layers.0.mlp.neuron_projections": torch.ones(N_HIDDEN, 0)})
    assert f"({N_HIDDEN}, 0)" in refusal(path, model)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "."])
def test_a_missing_file_is_refused(tmp_path: Path, model: Path, name: str) -> None:
    assert str(tmp_path / name) in refusal(tmp_path / name, model)


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"layers.0.mlp.neuron_projections": positions()})
    assert "'no/such-model'" in refusal(path, "no/such-model")
