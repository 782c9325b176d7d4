"""Layers made one after another are those that are made with all moments in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from projector.model.architecture.finding import find_architecture
from projector.model.loading import LoadedModel
from pruning.calibration.text import read_calibration
from pruning.layerwise.cutting import cut_model
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.making import LayerMaker
from pruning.layerwise.recipes import MadeLayer, Recipe
from pruning.methods.method import Proposals
from pruning.methods.plan import LayerPlan, NotApplicable, PruningPlan, StandIn
from tests.conftest import make_text
from tests.families import N_LAYERS, N_NEURONS, build
from tests.pruning.all_at_once import Planner, calibrate, make_plan, refit
from tests.refused import refused, refused_naming

LENGTH, N_SEQUENCES, SEED = 24, 23, 3
_documents = [make_text(60, seed=seed) for seed in range(12)]


class Subject:
    """A tiny model, its calibration with all moments, and made-up proposals."""

    def __init__(self, family: str, tokenizer: Any) -> None:
        self.model = build(family)
        self.architecture = find_architecture(self.model)
        loaded = LoadedModel(self.model, tokenizer, "made-up", "0" * 64)
        text = read_calibration(_documents, loaded, self.architecture, sequence_length=LENGTH)
        self.drawn = calibrate(loaded, self.architecture, text, n_sequences=N_SEQUENCES, seed=SEED)
        generator = torch.Generator().manual_seed(5)
        labels = torch.randint(-1, 3, (N_NEURONS,), generator=generator)
        places = torch.randn(N_NEURONS, 2, generator=generator)
        self.proposals = (Proposals(labels, (1, 0, None), places),) * N_LAYERS

    def before(self, recipe: Recipe) -> tuple[PruningPlan, Any]:
        """All moments at once, and a second model."""
        planner = Planner(self.model, self.architecture, self.drawn, self.proposals, SEED)
        plan = make_plan(
            planner,
            recipe.method,
            recipe.refit,
            recipe.sparsity,
            recipe.allocation,
            recipe.round_to,
        )
        found = refit(
            self.model, self.architecture, plan, recipe.refit, self.drawn, n_steps=3, seed=SEED
        )
        return plan, found

    def cut(self, recipe: Recipe, folder: Path, **options: Any) -> tuple[PruningPlan, Any]:
        """Layer by layer, a copy of the model cut in place."""
        model = deepcopy(self.model)
        architecture = find_architecture(model)
        given = self.drawn
        recipe.check(model, architecture, given.corpus, has_proposals=True)
        files = LayerFiles(folder, {}, [recipe])
        files.begin()
        found = cut_model(
            model,
            architecture,
            given.corpus,
            recipe,
            files,
            n_steps=3,
            seed=SEED,
            proposals=self.proposals,
            **options,
        )
        # Nothing of it stays in memory but what the pruned model has.
        assert all(p.numel() == 0 or p.data_ptr() in _places(found[1]) for p in model.parameters())
        return found


def _places(model: Any) -> set[int]:
    return {p.data_ptr() for p in model.parameters()}


@pytest.fixture(scope="module")
def subject(tokenizer: Any) -> Callable[[str], Subject]:
    known: dict[str, Subject] = {}

    def of(family: str) -> Subject:
        if family not in known:
            known[family] = Subject(family, tokenizer)
        return known[family]

    return of


def check_equal(mine: Any, theirs: Any) -> None:
    state, expected = mine.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    configs = [model.config.to_dict() for model in (mine, theirs)]
    for each in configs:
        # Of a copy it is the model's own: none, where it was never loaded.
        each.pop("dtype")
    assert configs[0] == configs[1]
    # Tied weights are tied.
    assert len(list(mine.parameters())) == len(list(theirs.parameters()))


CASES = [
    ("llama", Recipe("obs", "least-squares", 0.3)),
    ("llama", Recipe("obs", "bias", 0.3)),
    ("llama", Recipe("folding", "least-squares", 0.25)),
    ("qwen2", Recipe("poles", "least-squares", 0.3, round_to=4)),
    ("qwen2", Recipe("poles", "none", 0.4)),
    ("qwen2", Recipe("flap", "least-squares", 0.0)),
    ("qwen2", Recipe("obs", "reconstruct", 0.3)),
    ("phi3", Recipe("folding", "none", 0.25)),
    ("phi3", Recipe("wanda", "least-squares", 0.5)),
    ("gpt2", Recipe("random", "least-squares", 0.3)),
    ("opt", Recipe("magnitude", "bias", 0.2)),
    ("gpt_neox", Recipe("activation", "least-squares", 0.2)),
    ("bert", Recipe("folding", "bias", 0.2)),
    ("gemma2", Recipe("obs", "least-squares", 0.3)),
]


@pytest.mark.parametrize(("family", "recipe"), CASES, ids=lambda each: str(each))
def test_layer_by_layer_is_all_at_once(
    family: str, recipe: Recipe, subject: Callable[[str], Subject], tmp_path: Path
) -> None:
    made = subject(family)
    plan, expected = made.before(recipe)
    own_plan, own = made.cut(recipe, tmp_path / "layers", spilled=recipe.sparsity == 0.3)
    assert own_plan == plan
    check_equal(own, expected)


def test_recipes_of_one_walk_are_those_of_several(
    subject: Callable[[str], Subject], tmp_path: Path
) -> None:
    made = subject("gpt2")
    recipes = [
        Recipe(method, kind, sparsity)
        for method in ("obs", "poles", "folding", "random")
        for kind in ("none", "least-squares")
        for sparsity in (0.2, 0.5)
    ]
    files = LayerFiles(tmp_path / "layers", {}, recipes)
    maker = LayerMaker(
        made.model,
        made.architecture,
        made.drawn.corpus,
        recipes,
        files,
        seed=SEED,
        proposals=made.proposals,
    )
    # Once each, not once a layer.
    before = {recipe: made.before(recipe) for recipe in recipes}
    for layer, found in maker.layers(maker.shapes()):
        assert list(found) == recipes
        again = files.read(layer)
        for recipe in recipes:
            plan, expected = before[recipe]
            assert found[recipe].plan == again[recipe].plan == plan.layers[layer]
            if recipe.refit == "none":
                assert not found[recipe].tensors()
                continue
            theirs = find_architecture(expected).blocks[layer].mlp
            assert theirs is not None
            weight, bias = theirs.output.module.weight, theirs.output.module.bias
            for each in (found[recipe], again[recipe]):
                assert each.output is not None
                assert each.output_bias is not None
                assert torch.equal(each.output, weight.T)  # type: ignore[operator]
                assert torch.equal(each.output_bias, bias)  # type: ignore[arg-type]


class Killed(BaseException):
    """As a kill would, it ends everything at once."""


@pytest.mark.parametrize("kind", ["none", "least-squares"])
def test_a_run_resumes_with_the_layer_that_was_in_hand(
    kind: str, subject: Callable[[str], Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, recipe = subject("qwen2"), Recipe("obs", kind, 0.3)
    _, expected = made.before(recipe)
    made_layers: list[int] = []
    own = LayerMaker._make

    def counted(self: LayerMaker, walked: Any, shapes: Any) -> dict[Recipe, MadeLayer]:
        if walked.index == 1 and not made_layers.count(-1):
            made_layers.append(-1)
            raise Killed
        made_layers.append(walked.index)
        return own(self, walked, shapes)

    monkeypatch.setattr(LayerMaker, "_make", counted)
    with pytest.raises(Killed):
        made.cut(recipe, tmp_path / "layers", spilled=True)
    _, found = made.cut(recipe, tmp_path / "layers", spilled=True)
    assert made_layers == [0, -1, 1]
    check_equal(found, expected)
    # All is there already.
    _, again = made.cut(recipe, tmp_path / "layers")
    assert made_layers == [0, -1, 1]
    check_equal(again, expected)


def test_files_of_other_settings_are_told(tmp_path: Path) -> None:
    recipe = Recipe("obs", "none", 0.3)
    files = LayerFiles(tmp_path / "layers", {"seed": 1}, [recipe], settings=["seed"])
    assert not files.is_begun
    made = {recipe: MadeLayer(LayerPlan(4, (0, 2)), torch.ones(3, 2), None)}
    files.write(0, made)
    assert files.has(0)
    assert not files.has(1)
    assert files.difference() is None
    found = files.read(0)[recipe]
    assert found.plan == made[recipe].plan
    assert found.output is not None
    assert torch.equal(found.output, torch.ones(3, 2))
    assert found.output_bias is None
    other = LayerFiles(tmp_path / "layers", {"seed": 2}, [recipe], settings=["seed"])
    assert "seed" in (other.difference() or "")
    another = LayerFiles(tmp_path / "layers", {"seed": 1}, [Recipe("wanda", "none", 0.3)])
    assert another.difference() is not None
    (tmp_path / "layers" / "layer-00000.safetensors").write_bytes(b"nothing")
    with refused_naming(tmp_path / "layers", "damaged"):
        files.read(0)
    (tmp_path / "layers" / "mine.txt").write_text("mine")
    with refused("out"):
        files.check_place()


def test_a_plan_is_kept_once_and_a_layer_of_another_version_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [Recipe(m, kind, 0.5) for m in ("poles", "folding") for kind in ("none", "bias")]
    stand_ins = tuple(StandIn(2 * j + 1, 2 * j, 1 / (3 + j)) for j in range(500))
    kept = tuple(range(0, 1000, 2))
    averaged = LayerPlan(1000, kept, groups=tuple(j // 2 for j in range(1000)))
    plans = [LayerPlan(1000, kept, stand_ins)] * 2 + [averaged] * 2
    files = LayerFiles(tmp_path / "layers", {}, recipes)
    files.begin()
    files.write(0, {r: MadeLayer(plan) for r, plan in zip(recipes, plans, strict=True)})
    assert [each.plan for each in files.read(0).values()] == plans
    assert files.read(0, recipes[3])[recipes[3]].plan == averaged
    path = tmp_path / "layers" / "layer-00000.safetensors"
    # Both plans' kept neurons, 500 stand-ins, 1,000 groups; and a header that holds no plan.
    assert path.stat().st_size < 4 * 1000 + 16 * 500 + 4 * 1000 + 3000
    assert files.difference() is None
    with monkeypatch.context() as patch:
        patch.setattr("pruning.layerwise.files.FORMAT_VERSION", 3)
        assert "another version" in (files.difference() or "")
    # What the system refuses is no damage: nobody is to delete hours of work for that.
    path.unlink()
    path.mkdir()
    with refused_naming(tmp_path / "layers", "os error 19"):
        files.read(0)


def test_what_can_not_be_is_refused_before_any_work(subject: Callable[[str], Subject]) -> None:
    made = subject("qwen2")
    given = (made.model, made.architecture, made.drawn.corpus)
    with pytest.raises(NotApplicable):
        Recipe("obs", "bias", 0.3).check(*given, has_proposals=True)
    with refused("projection"):
        Recipe("poles", "none", 0.3).check(*given, has_proposals=False)
    short = made.drawn.text.draw(1, 0)
    with refused("n_sequences", 1, "24 calibration tokens", "40 neurons", "n_sequences=2"):
        Recipe("obs", "none", 0.3).check(made.model, made.architecture, short, has_proposals=True)


@pytest.fixture(autouse=True)
def _no_grad_is_left_behind() -> Iterator[None]:
    yield
    assert torch.is_grad_enabled()
