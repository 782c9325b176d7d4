"""What prune and sweep refuse before they run, and what they read of a projection."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from typer.testing import CliRunner

from projector.model.loading import load_model
from projector.projection.projection import Projection
from projector.terminal.cli import app as projector_app
from pruning.poles.finding import find_poles
from pruning.poles.poles import MAP_POLES
from pruning.preparing import (
    Origin,
    check_unseen,
    load_prunable,
    origin_of,
    read_proposals,
)
from pruning.settings import CORRELATION_POLES, PoleOptions
from tests.families import ENCODERS, FAMILIES, MIXTURES, N_LAYERS, N_NEURONS
from tests.refused import refused, refused_naming

GOLDEN = Path(__file__).parents[1] / "golden" / "projection-v1" / "stress"
Checkpoint = Callable[[str], Path]


def fit(model: Path, text: Path, out: Path, *options: str) -> Path:
    """A projection of a model, by the command that users have; of one layout unless others are
    asked for."""
    arguments = ["fit", str(model), "--corpus", str(text), "--out", str(out), "--json"]
    arguments += options or ("--sites", "mlp_post")
    if not {"--layouts", "--objective", "--dim"} & set(options):
        arguments += ["--dim", "3"]
    result = CliRunner().invoke(projector_app, arguments)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def projection(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, text_file: Path
) -> Path:
    return fit(checkpoint("qwen2"), text_file, tmp_path_factory.mktemp("fitted") / "out")


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "bloom"])
def test_every_family_loads_with_its_head(family: str, checkpoint: Checkpoint) -> None:
    loaded, architecture = load_prunable(str(checkpoint(family)), device="cpu")
    name = type(loaded.model).__name__
    assert name.endswith("ForMaskedLM" if family in ENCODERS else ("ForCausalLM", "LMHeadModel"))
    assert [block.mlp.n_neurons for block in architecture.blocks if block.mlp] == [N_NEURONS] * 2


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("bloom", ("BloomForCausalLM", "config")),
        *((family, ("layer 0", "4 experts")) for family in MIXTURES),
    ],
)
def test_what_can_not_be_pruned_is_refused(
    family: str, names: tuple[str, ...], checkpoint: Checkpoint
) -> None:
    with refused_naming(*names):
        load_prunable(str(checkpoint(family)), device="cpu")


def test_proposals_are_the_projection_s(projection: Path, checkpoint: Checkpoint) -> None:
    loaded, architecture = load_prunable(str(checkpoint("qwen2")), device="cpu")
    found, _ = read_proposals(projection, loaded, architecture)
    assert len(found) == N_LAYERS
    maps = Projection.load(projection)
    for layer, each in enumerate(found):
        poles = find_poles(maps, layer, "mlp_post", CORRELATION_POLES)
        assert torch.equal(each.labels, poles.labels)
        assert each.opposites == poles.opposites
        torch.testing.assert_close(
            each.positions, maps.positions(layer, "mlp_post"), equal_nan=True
        )


def test_without_statistics_poles_are_the_map_s(
    projection: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(projection, tmp_path / "bare"))
    (bare / "statistics.safetensors").unlink()
    loaded, architecture = load_prunable(str(checkpoint("qwen2")), device="cpu")
    found, _ = read_proposals(bare, loaded, architecture)
    poles = find_poles(Projection.load(bare), 0, "mlp_post", MAP_POLES)
    assert torch.equal(found[0].labels, poles.labels)


def test_poles_are_the_ones_asked_for(projection: Path, checkpoint: Checkpoint) -> None:
    for options, has_statistics, expected in (
        (PoleOptions(), True, CORRELATION_POLES),
        (PoleOptions(), False, MAP_POLES),
        (PoleOptions("positions"), True, MAP_POLES),
        (PoleOptions("abs-correlation"), False, CORRELATION_POLES),
        (PoleOptions(None, 4), True, replace(CORRELATION_POLES, min_cluster_size=4)),
        (PoleOptions(None, 4), False, replace(MAP_POLES, min_cluster_size=4)),
        (PoleOptions("positions", None, "leaf"), True, replace(MAP_POLES, selection="leaf")),
    ):
        assert options.settings(has_statistics=has_statistics) == expected
    with refused("space", "moon"):
        PoleOptions("moon")
    asked = PoleOptions("correlation", 2)
    loaded, architecture = load_prunable(str(checkpoint("qwen2")), device="cpu")
    found, settings = read_proposals(projection, loaded, architecture, asked)
    assert (settings.space, settings.min_cluster_size) == ("correlation", 2)
    for layer, each in enumerate(found):
        poles = find_poles(Projection.load(projection), layer, "mlp_post", settings)
        assert torch.equal(each.labels, poles.labels)


def test_a_projection_of_the_evaluation_text_is_refused_under_any_name(
    projection: Path, text_file: Path, tmp_path: Path
) -> None:
    same = tmp_path / "another-name.txt"
    same.write_bytes(text_file.read_bytes())
    with refused_naming(f"'{projection}'", f"'{same}'"):
        check_unseen(projection, [str(same)])
    # And other text under the same name is not.
    other = tmp_path / text_file.name
    other.write_text("Something else.", encoding="utf-8")
    check_unseen(projection, [str(other)])


def test_a_projection_that_does_not_fit_is_refused(
    projection: Path, checkpoint: Checkpoint, text_file: Path, tmp_path: Path
) -> None:
    other, its_architecture = load_prunable(str(checkpoint("llama")), device="cpu")
    with refused_naming(f"'{projection}'", other.weights_sha256[:12]):
        read_proposals(projection, other, its_architecture)
    loaded, architecture = load_prunable(str(checkpoint("qwen2")), device="cpu")
    model = str(checkpoint("qwen2"))
    for name, options in (
        ("site", ("--sites", "attn_out")),
        ("layer", ("--sites", "mlp_post", "--layers", "0")),
    ):
        partial = fit(Path(model), text_file, tmp_path / name, *options)
        layer = 0 if name == "site" else 1
        with refused_naming(f"'{partial}'", "mlp_post", f"layer {layer}", "`projector fit"):
            read_proposals(partial, loaded, architecture)
    with refused_naming(tmp_path / "nowhere", "`projector fit`"):
        read_proposals(tmp_path / "nowhere", loaded, architecture)


def test_other_weights_of_the_same_model_are_another_model(
    projection: Path, checkpoint: Checkpoint, tokenizer: object, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint("qwen2"), tmp_path / "qwen2"))
    loaded = load_model(str(folder), device="cpu", with_head=True)
    with torch.no_grad():
        loaded.model.lm_head.weight[0, 0] += 1  # type: ignore[index,union-attr,operator]
    loaded.model.save_pretrained(folder)  # type: ignore[operator]
    changed, architecture = load_prunable(str(folder), device="cpu")
    with refused_naming(f"'{projection}'", changed.weights_sha256[:12]):
        read_proposals(projection, changed, architecture)


def test_poles_are_from_a_projection_and_its_first_layout(projection: Path, tmp_path: Path) -> None:
    content = (projection / "projection.json").read_bytes()
    (layout,) = (projection / "layouts").glob("*.json")
    own = hashlib.sha256(layout.read_bytes()).hexdigest()
    assert origin_of(projection) == Origin(hashlib.sha256(content).hexdigest(), own)
    copy = Path(shutil.copytree(projection, tmp_path / "copy"))
    assert origin_of(str(copy)) == origin_of(projection)
    whole = Projection.load(copy)
    name, placed = next(iter(whole.layouts.items()))
    whole = replace(
        whole,
        layouts={
            name: replace(placed, versions={}, positions=dict(placed.positions)),
        },
        statistics={},
    )
    whole.save(copy, force=True)
    assert origin_of(copy).sha256 == origin_of(projection).sha256
    assert origin_of(copy) != origin_of(projection)


def test_of_version_1_the_projection_alone_is_named() -> None:
    found = origin_of(GOLDEN)
    assert found.layout_sha256 is None
    assert found.facts() == {"projection": found.sha256}
