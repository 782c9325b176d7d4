"""Shared directions that are planted are found, random ones are not; output weights are found."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.model.loading import LoadedModel
from projector.residual.contrast.sharing.measuring import measure_sharing
from projector.residual.contrast.sharing.records import Measured, Sharing
from projector.residual.contrast.sharing.verdict import judge
from projector.residual.contrast.sharing.weights import output_directions
from projector.residual.contributions import collect_contributions
from projector.residual.subject import Subject
from tests.families import _LLAMA_LIKE, CLOSE_PER_BLOCK, FAMILIES, STREAMS, subject_of

N_LAYERS, WIDTH, N = 5, 64, 60
# Without the padding token, whose embedding is 0 in some families.
IDS = [5, 9, 33, 71, 5, 120, 8, 44, 9]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def llama(n_layers: int) -> Subject:
    torch.manual_seed(0)
    settings: dict[str, Any] = _LLAMA_LIKE | {"num_hidden_layers": n_layers, "hidden_size": WIDTH}
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**settings)).eval()
    return Subject(LoadedModel(model, None, "llama", ""))


@pytest.fixture(scope="module")
def subject() -> Subject:
    return llama(N_LAYERS)


def noise(layer: int, seed: int = 0) -> Tensor:
    return normal(N, WIDTH, seed=100 * seed + layer + 1)


def measure(subject: Subject, updates: Any) -> Sharing:
    found = measure_sharing(subject, updates)
    json.dumps(found.as_dict(), allow_nan=False)
    assert [(row.layer, row.following) for row in found.rows] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert found.cosine is not None
    assert found.captured is not None
    assert found.overlap is not None
    return found


def test_a_direction_that_all_updates_share(subject: Subject) -> None:
    direction, sizes = normal(WIDTH, seed=7), normal(N, 1, seed=8)
    found = measure(subject, lambda layer: sizes * direction + 0.3 * noise(layer))
    assert found.verdict == "shared"
    assert " not " not in found.sentence
    # Less than 1, for the noise outweighs the direction where a sample's size is near 0.
    assert found.cosine is not None
    assert 0.5 < found.cosine.value < 0.9
    assert found.captured is not None
    assert found.captured.value > 0.8
    for row in found.rows:
        assert row.cosine is not None
        assert row.cosine.value > 2 * row.cosine.random_high
        assert row.angles is not None
        assert row.angles_random is not None
        assert row.angles[0] < 10 < row.angles_random[0]


def test_updates_that_undo_each_other_share_their_direction(subject: Subject) -> None:
    own = noise(0)
    found = measure(subject, lambda layer: own if layer % 2 else -own)
    assert found.verdict == "shared"
    assert found.cosine is not None
    assert found.cosine.value == pytest.approx(-1)
    assert "−1.00" in found.sentence


def test_the_same_directions_with_sizes_of_their_own(subject: Subject) -> None:
    span = normal(3, WIDTH, seed=7)
    found = measure(subject, lambda layer: noise(layer)[:, :3] @ span + 0.05 * noise(layer, 1))
    assert found.verdict == "shared"
    assert found.captured is not None
    assert found.captured.value > 0.9
    assert found.cosine is not None
    assert abs(found.cosine.value) < 0.2


@pytest.mark.parametrize("seed", range(6))
def test_independent_updates_share_nothing(subject: Subject, seed: int) -> None:
    # As uneven as those of a model: a few directions hold most of each layer's.
    scales = torch.linspace(1, 0, WIDTH) ** 3 + 0.05
    turned = {
        layer: (noise(layer, seed) * scales)
        @ torch.linalg.qr(normal(WIDTH, WIDTH, seed=1000 * seed + layer))[0]
        for layer in range(N_LAYERS)
    }
    found = measure(subject, turned.__getitem__)
    assert found.verdict == "not shared"
    assert " not " in found.sentence
    assert found.overlap is not None
    assert found.overlap.beyond_random < 0.05


def test_a_mixture_is_shared_in_part(subject: Subject) -> None:
    common = noise(50)
    found = measure(subject, lambda layer: 0.3**0.5 * common + 0.7**0.5 * noise(layer))
    assert found.verdict == "in part"
    assert found.cosine is not None
    assert found.cosine.value == pytest.approx(0.3, abs=0.05)


def test_layers_far_apart_stand_beside_those_that_follow_each_other(subject: Subject) -> None:
    spans = [normal(8, WIDTH, seed=20 + i) for i in range(3)]
    # Layers 0 and 1 write in one span, 2 in another, 3 and 4 in a third.
    of = [0, 0, 1, 2, 2]
    found = measure(subject, lambda layer: noise(layer)[:, :8] @ spans[of[layer]])
    assert found.overlap is not None
    assert found.overlap_apart is not None
    assert found.overlap_apart < 0.25 < found.overlap.value
    same = measure(subject, lambda layer: noise(layer)[:, :8] @ spans[0])
    assert same.overlap_apart == pytest.approx(1)


def test_each_set_is_centred_by_itself(subject: Subject) -> None:
    # The two sets part in one direction at every layer; within a set nothing is shared.
    apart = 20 * normal(WIDTH, seed=9)
    found = measure(subject, lambda layer: (noise(layer)[:30] + apart, noise(layer)[30:] - apart))
    assert found.verdict == "not shared"
    mixed = measure(
        subject, lambda layer: torch.cat([noise(layer)[:30] + apart, noise(layer)[30:] - apart])
    )
    assert mixed.verdict == "shared"


def test_equal_seeds_give_equal_results(subject: Subject) -> None:
    one, same = (measure_sharing(subject, noise, n_draws=20, seed=3) for _ in range(2))
    other = measure_sharing(subject, noise, n_draws=20, seed=4)
    assert one == same
    assert one.cosine is not None
    assert other.cosine is not None
    assert one.cosine.value == other.cosine.value
    assert one.cosine.random_high != other.cosine.random_high


def test_updates_that_do_not_differ_between_samples(subject: Subject) -> None:
    still = normal(1, WIDTH, seed=1).expand(N, WIDTH)
    found = measure_sharing(subject, lambda layer: still if layer == 2 else noise(layer))
    assert [row.cosine is None for row in found.rows] == [False, True, True, False]
    for row in found.rows[1:3]:
        assert {"cosine", "captured", "overlap", "angles"} <= set(row.reasons)
        assert "layer 2" in row.reasons["cosine"]
        assert row.mlp_weights is not None
    assert found.verdict == "not shared"
    nothing = measure_sharing(subject, lambda layer: still)
    assert nothing.verdict is None
    assert "determined" in nothing.sentence
    json.dumps(nothing.as_dict(), allow_nan=False)


def test_one_layer_has_no_other_to_share_with() -> None:
    found = measure_sharing(llama(1), noise)
    assert (found.rows, found.verdict, found.cosine) == ((), None, None)


def test_wrong_settings_and_numbers(subject: Subject) -> None:
    with pytest.raises(SettingError) as error:
        measure_sharing(subject, noise, n_draws=0)
    assert (error.value.setting, error.value.value) == ("n_draws", 0)
    with pytest.raises(UserError):
        measure_sharing(subject, lambda layer: noise(layer) / 0)


def test_the_rule() -> None:
    def figure(value: float) -> Measured:
        return Measured(value, 0.0, -0.02, 0.02)

    assert judge(figure(0.5), figure(0)) == judge(figure(0), figure(0.5)) == "shared"
    assert judge(figure(-0.5), figure(0)) == "shared"
    assert judge(figure(0.1), figure(0)) == judge(figure(0), figure(0.49)) == "in part"
    assert judge(figure(0.09), figure(0.09)) == "not shared"
    # Fewer directions in common than by chance are not shared ones.
    assert judge(None, Measured(0.0, 0.3, 0.2, 0.4)) == "not shared"
    # What rotations of few samples give is no finding, however large.
    assert judge(Measured(0.6, 0.0, -0.7, 0.7), None) == "not shared"
    assert judge(None, None) is None


@pytest.mark.parametrize("family", [*FAMILIES, *STREAMS])
def test_output_weights_write_where_the_model_writes(family: str) -> None:
    subject = subject_of(family)
    for layer, block in enumerate(subject.layout.blocks):
        for number, each in enumerate(block.additions().values()):
            assert each.matrix is not None
            weight = each.matrix.module.weight
            # A matrix that writes in one direction alone.
            left = normal(len(weight), 1, seed=10 * layer + number)
            with torch.no_grad():
                weight.copy_(left @ normal(1, weight.shape[1], seed=number + 5))
    run = collect_contributions(subject, IDS)
    for block in run.blocks:
        for name, values in (("attention", block.attention), ("mlp", block.mlp)):
            found = output_directions(subject, block.layer, name, 1)
            assert isinstance(found, Tensor)
            assert values is not None
            cosines = torch.nn.functional.normalize(values.double(), dim=1) @ found
            assert cosines.abs().min() > 1 - 1e-3, name


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "bert", "opt_350m"])
def test_weights_that_agree_overlap(family: str) -> None:
    subject = subject_of(family)
    first, second = subject.layout.blocks
    independent = measure_sharing(subject, lambda layer: noise(layer)[:, :24])
    assert first.mlp is not None
    assert second.mlp is not None
    assert first.mlp.matrix is not None
    assert second.mlp.matrix is not None
    with torch.no_grad():
        # The norms' weights behind them, where there are any, are made equal too.
        for (one, _), (other, _) in zip(first.mlp.norms, second.mlp.norms, strict=True):
            other.load_state_dict(one.state_dict())
        second.mlp.matrix.module.weight.copy_(first.mlp.matrix.module.weight)
    agreeing = Subject(subject.loaded)
    found = measure_sharing(agreeing, lambda layer: noise(layer)[:, :24])
    assert found.mlp_weights is not None
    assert found.attention_weights is not None
    assert found.mlp_weights.value == pytest.approx(1, abs=1e-4)
    assert found.mlp_weights.random_high < 0.6
    assert independent.mlp_weights is not None
    assert independent.mlp_weights.value < 0.7
    assert independent.attention_weights == found.attention_weights
    # What the layers write counts for the verdict, and not where they could.
    assert found.verdict == independent.verdict
    assert any("norms' weights" in note for note in found.notes) == (family == "gemma2")
    assert any("whole stream" in note for note in found.notes) == (family in CLOSE_PER_BLOCK)


def test_a_mixture_of_experts_has_no_single_output_weight() -> None:
    found = measure_sharing(subject_of("mixtral"), lambda layer: noise(layer)[:, :24])
    assert found.mlp_weights is None
    assert "mlp_weights" in found.rows[0].reasons
    assert found.attention_weights is not None
