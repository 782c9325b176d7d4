"""What is asked of layer-time: as JSON, in words, and as the library is given it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.guest import Guest
from dashboard.layer_time.orders import LayerTimeOrder, make_picture
from dashboard.prompts import Prompt, read_prompt
from projector.progress import Silent
from projector.residual.particles.settings import ParticleSettings
from tests.dashboard.conftest import DECODER

SETTINGS = (
    ParticleSettings(),
    ParticleSettings(layers=(0, 1), dim=2, n_lines=0, keep_outliers=True),
    ParticleSettings(reduction="umap", fit="corpus", corpus="stdlib:train"),
    ParticleSettings(particles="autoencoder", autoencoder=Path("somewhere")),
    ParticleSettings(particles="contributions", projection=Path("elsewhere"), per_layer=True),
)


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_order_goes_through_json(settings: ParticleSettings) -> None:
    order = LayerTimeOrder((Prompt("kalo mi"), Prompt("kalo so", 3, True)), settings)
    again = LayerTimeOrder.of_record(json.loads(json.dumps(order.to_record())))
    assert again == order
    assert again.id == order.id


def test_orders_that_differ_have_other_ids() -> None:
    orders = [LayerTimeOrder((Prompt("kalo mi"),), each) for each in SETTINGS]
    orders += [replace(orders[0], prompts=(Prompt("kalo mi"), each)) for each in (Prompt("so"),)]
    orders += [replace(orders[0], prompts=(Prompt("kalo mi", 2),))]
    assert len({each.id for each in orders}) == len(orders)
    # Where an autoencoder is kept changes no picture.
    kept = replace(orders[3], kept_in=Path("somewhere"))
    assert (kept, kept.id) == (orders[3], orders[3].id)


def test_only_what_is_quick_is_waited_for() -> None:
    orders = [LayerTimeOrder((Prompt("kalo mi"),), each) for each in SETTINGS]
    quick = [each.is_quick(10**6, [[1, 2, 3]]) for each in orders]
    assert quick == [True, True, False, False, False]
    # A long prompt of a large model; and pairs that are sampled beside two prompts of one.
    assert not orders[0].is_quick(10**8, [[1] * 600])
    pair = [[1, 2, 3, 4], [1, 2, 9, 4]]
    assert orders[0].is_quick(10**8, [pair[0]])
    assert not orders[0].is_quick(10**8, pair)
    assert orders[0].is_quick(10**6, pair)
    assert orders[0].is_quick(10**8, [[5, *pair[0]], pair[1]])
    alone = replace(orders[0], settings=ParticleSettings(n_pairs=0))
    assert alone.is_quick(10**8, pair)


def test_words_tell_no_folder_and_one_line() -> None:
    settings = ParticleSettings(fit="corpus", corpus="/somewhere/secret/text.txt")
    words = LayerTimeOrder((Prompt("kalo\n mi " * 40),), settings).words
    assert "secret" not in words
    assert "\n" not in words
    assert "text.txt" in words
    assert len(words) < 150


def test_tokens_that_the_model_added_are_shown(guest: Callable[[str], Guest]) -> None:
    prompts = Prompt("kalo mi", 3), Prompt("kalo so", 3)
    read = [read_prompt(guest(DECODER), each).ids for each in prompts]
    order = LayerTimeOrder(prompts, ParticleSettings())
    picture = make_picture(guest(DECODER).subject, order, Silent())
    assert [[each["id"] for each in prompt["tokens"]] for prompt in picture.report["prompts"]] == [
        list(each) for each in read
    ]
    assert picture.n_tokens == [len(each) for each in read]
    assert picture.layers == [None, 0, 1]
