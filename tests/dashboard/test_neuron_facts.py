"""A neuron's card, against the same found in the plainest way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dashboard.guest import Guest
from dashboard.neuron_facts import (
    QUANTILES,
    Place,
    histogram,
    neighbours,
    places,
    read_excerpts,
    written,
)
from projector.corpus.batches import Corpus
from projector.corpus.pieces import Pieces, readable
from projector.corpus.tokens import read_corpus
from projector.statistics.examples import Examples, gather_examples
from tests.dashboard.conftest import DECODER, ENCODER, GPT2
from tests.refused import refused_naming

Guests = Callable[[str], Guest]
LAYER, NEURON = 1, 7


def corpus_of(guest: Guest, text_file: Path, n_tokens: int = 400) -> Corpus:
    is_causal = guest.architecture.is_causal
    return read_corpus(
        str(text_file),
        guest.loaded.tokenizer,
        sequence_length=40,
        max_tokens=n_tokens,
        skip_first=int(is_causal),
        packed=is_causal,
    )


@pytest.fixture(scope="module", params=[DECODER, ENCODER])
def gathered(
    request: pytest.FixtureRequest, guest: Guests, text_file: Path
) -> Iterator[tuple[Guest, Examples]]:
    found = guest(request.param)
    examples = gather_examples(
        found.loaded.model,
        found.architecture,
        corpus_of(found, text_file),
        LAYER,
        "mlp_post",
        n_extremes=4,
    )
    return found, examples


@pytest.fixture
def examples(gathered: tuple[Guest, Examples]) -> Examples:
    return gathered[1]


def test_a_histogram_counts_every_drawn_token(examples: Examples) -> None:
    found = histogram(examples, NEURON)
    values = examples.sample[:, NEURON].double().tolist()
    assert found.counts.sum() == len(values) > 300
    for k, count in enumerate(found.counts.tolist()):
        low, high = found.edges[k], found.edges[k + 1]
        is_last = k == len(found.counts) - 1
        assert count == sum(low <= v < high or (is_last and v == high) for v in values)


def test_places_are_extremes_quantiles_and_random_ones(examples: Examples) -> None:
    found = places(examples, NEURON)
    values = sorted(examples.sample[:, NEURON].double().tolist())
    by_group: dict[str, list[Place]] = {}
    for place in found:
        by_group.setdefault(place.group, []).append(place)
    for group, kept, at in (
        ("highest", examples.highest, examples.highest_at),
        ("lowest", examples.lowest, examples.lowest_at),
    ):
        assert [p.at for p in by_group[group]] == at[NEURON].tolist()
        assert [p.value for p in by_group[group]] == kept[NEURON].tolist()
    for quantile in QUANTILES:
        (place,) = by_group[f"{quantile:.0%} quantile"]
        below = sum(v < place.value for v in values) / len(values)
        above = sum(v > place.value for v in values) / len(values)
        assert below <= quantile + 0.01
        assert above <= 1 - quantile + 0.01
    random = by_group["at random"]
    assert len({p.at for p in random}) == len(random) == 8
    # Each value is the one at its token, and a place is the same each time.
    where = {int(t): row for row, t in enumerate(examples.sample_at)}
    for place in (*random, *(p for p in found if p.group.endswith("quantile"))):
        assert place.value == float(examples.sample[where[place.at], NEURON])
    assert places(examples, NEURON) == found
    assert [p.at for p in places(examples, NEURON, seed=1) if p.group == "at random"] != [
        p.at for p in random
    ]


def test_a_neuron_that_is_not_finite_everywhere_has_a_card_all_the_same(examples: Examples) -> None:
    sample = examples.sample.clone()
    sample[3, NEURON], sample[5, NEURON], sample[8, NEURON] = math.nan, math.inf, -math.inf
    broken = replace(examples, sample=sample)
    found = histogram(broken, NEURON)
    assert found.counts.sum() == len(sample) - 3
    assert np.isfinite(found.edges).all()
    assert all(math.isfinite(place.value) for place in places(broken, NEURON))
    sample[:, NEURON] = math.nan
    assert histogram(broken, NEURON).counts.sum() == 0
    assert {place.group for place in places(broken, NEURON)} <= {"highest", "lowest"}


def hooked(guest: Guest, ids: list[int]) -> Tensor:
    """What the MLP's output projection of ``LAYER`` reads, by a hook of one's own."""
    model: Any = guest.loaded.model
    if hasattr(model, "bert"):
        module = model.bert.encoder.layer[LAYER].output.dense
    elif hasattr(model, "transformer"):
        module = model.transformer.h[LAYER].mlp.c_proj
    else:
        module = model.model.layers[LAYER].mlp.down_proj
    passed: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: passed.append(args[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    handle.remove()
    return passed[0][0]


def test_excerpts_are_what_the_model_does_there(gathered: tuple[Guest, Examples]) -> None:
    guest, examples = gathered
    wanted = places(examples, NEURON)
    found = read_excerpts(guest, examples, LAYER, "mlp_post", NEURON, wanted)
    assert [each.place for each in found] == wanted
    decode = guest.loaded.tokenizer.decode
    for excerpt in found:
        at = excerpt.place.at
        starts = examples.starts.tolist()
        first = max(s for s in starts if s <= at)
        end = min(s for s in starts if s > at)
        last = min(end, at + 9)
        ids = examples.ids[first:last].tolist()
        # An encoder reads what comes after too.
        read = ids if guest.architecture.is_causal else examples.ids[first:end].tolist()
        values = hooked(guest, read)[: len(ids), NEURON].tolist()
        n_shown = len(excerpt.texts)
        assert "".join(excerpt.texts) == decode(ids[-n_shown:])
        np.testing.assert_allclose(excerpt.values, values[-n_shown:], rtol=1e-4, atol=1e-5)
        assert len(ids) - n_shown + excerpt.focus == at - first
        assert excerpt.focus == min(23, at - first)
        # Sequences fit into what is read, so that it is the value that was kept.
        focused = excerpt.values[excerpt.focus]
        assert focused == pytest.approx(excerpt.place.value, rel=2e-3, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_are_by_correlation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rho = np.corrcoef(rng.normal(size=(30, 12))).astype(np.float32)
    rho[[4, 9]] = np.nan
    rho[:, [4, 9]] = np.nan
    others = sorted((float(rho[0, j]), j) for j in range(1, 30) if j not in (4, 9))
    highest, lowest = neighbours(rho, 0, most=6)
    assert [each.rho for each in highest] == [value for value, _ in others[::-1][:6]]
    assert [each.neuron for each in lowest] == [j for value, j in others[:6] if value < 0]
    assert all(rho[0, each.neuron] == np.float32(each.rho) for each in (*highest, *lowest))


def test_a_dead_neuron_has_no_neighbours_and_one_without_opposite_no_opposites() -> None:
    rho = np.array([[1, 0.5, np.nan], [0.5, 1, np.nan], [np.nan] * 3], dtype=np.float32)
    assert neighbours(rho, 2) == ([], [])
    highest, lowest = neighbours(rho, 0)
    assert [(each.neuron, each.rho) for each in highest] == [(1, 0.5)]
    assert lowest == []


@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_what_it_writes_is_its_output_weights_through_the_unembedding(
    family: str, guest: Guests
) -> None:
    found = guest(family)
    model: Any = found.loaded.model
    if family == DECODER:
        vector = model.model.layers[LAYER].mlp.down_proj.weight[:, NEURON]
        unembedding = model.lm_head.weight
    else:
        vector = model.transformer.h[LAYER].mlp.c_proj.weight[NEURON]
        unembedding = model.transformer.wte.weight
    effects = (unembedding.detach().double() * vector.detach().double()).sum(1)
    effects = (effects - effects.mean()).tolist()[: len(found.loaded.tokenizer)]
    ranked = sorted(range(len(effects)), key=lambda i: effects[i])
    promoted, suppressed = written(found, LAYER, NEURON, most=5)
    pieces = Pieces.of_tokenizer(found.loaded.tokenizer)
    for tokens, expected in ((promoted, ranked[::-1][:5]), (suppressed, ranked[:5])):
        assert [each.text for each in tokens] == [readable(pieces.text(i)) for i in expected]
        np.testing.assert_allclose(
            [each.effect for each in tokens], [effects[i] for i in expected], rtol=1e-4, atol=1e-6
        )
    assert promoted[0].effect > 0 > suppressed[0].effect


def test_what_an_encoder_s_neuron_writes_is_not_told(guest: Guests) -> None:
    with refused_naming("encoder"):
        written(guest(ENCODER), LAYER, NEURON)


def test_a_model_without_an_unembedding_says_so(guest: Guests) -> None:
    found = guest(DECODER)
    trunk = getattr(found.loaded.model, "model")  # noqa: B009
    bare = Guest(replace(found.loaded, model=trunk), found.architecture)
    with refused_naming("unembedding"):
        written(bare, LAYER, NEURON)
