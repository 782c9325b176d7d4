"""Layer by layer, the moments are those of one pass, and nothing of a layer stays."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from projector.corpus.batches import Corpus
from projector.model.architecture.finding import find_architecture
from projector.model.loading import LoadedModel
from pruning.calibration.text import CalibrationText, read_calibration
from pruning.calibration.walk import Walk
from tests.conftest import make_text
from tests.families import FAMILIES, N_LAYERS, build
from tests.pruning.all_at_once import calibrate
from tests.refused import refused_naming

LENGTH = 24
N_SEQUENCES = 23
_documents = [make_text(60, seed=seed) for seed in range(12)]


def made(family: str, tokenizer: Any) -> tuple[LoadedModel, Any, CalibrationText]:
    model = build(family)
    architecture = find_architecture(model)
    loaded = LoadedModel(model, tokenizer, "made-up", "0" * 64)
    text = read_calibration(_documents, loaded, architecture, sequence_length=LENGTH)
    return loaded, architecture, text


PRUNABLE = [name for name in FAMILIES if name != "mixtral"]


@pytest.mark.parametrize("family", PRUNABLE)
def test_moments_are_those_of_one_pass_through_the_whole_model(
    family: str, tokenizer: Any, tmp_path: Path
) -> None:
    loaded, architecture, text = made(family, tokenizer)
    if any(block.mlp is None for block in architecture.blocks):
        pytest.skip("no MLP of it can be pruned")
    options = {"n_sequences": N_SEQUENCES, "seed": 1, "batch_size": 7}
    whole = calibrate(loaded, architecture, text, **options)
    corpus: Corpus = text.draw(N_SEQUENCES, 1)
    for spill in (None, tmp_path):
        walk = Walk(loaded.model, architecture, corpus, batch_size=7, spill=spill)
        layers = list(walk.layers())
        assert [each.index for each in layers] == list(range(N_LAYERS))
        for each, expected in zip(layers, whole.layers, strict=True):
            for mine, theirs in (
                (each.moments.fit, expected.fit),
                (each.moments.held_out, expected.held_out),
                (each.moments.all, expected.all),
            ):
                assert mine.n_tokens == theirs.n_tokens
                assert torch.equal(mine.mean, theirs.mean)
                assert torch.equal(mine.second, theirs.second)
    assert not list(tmp_path.iterdir())


def test_how_blocks_are_called_is_learnt_from_two_batches_of_a_shape(tokenizer: Any) -> None:
    loaded, architecture, text = made("llama", tokenizer)
    corpus = text.draw(N_SEQUENCES, 0)
    whole = calibrate(loaded, architecture, text, n_sequences=N_SEQUENCES, batch_size=3)
    last = architecture.blocks[-1].module
    runs: list[Any] = []
    handle = last.register_forward_pre_hook(lambda *_: runs.append(1))
    layers = list(Walk(loaded.model, architecture, corpus, batch_size=3).layers())
    handle.remove()
    for each, expected in zip(layers, whole.layers, strict=True):
        assert torch.equal(each.moments.all.second, expected.all.second)
    # Two of seven batches of three, the one of two; and each once in the walk.
    assert len(runs) == 3 + 8


def test_calls_that_depend_on_the_text_are_learnt_from_every_batch(tokenizer: Any) -> None:
    loaded, architecture, text = made("llama", tokenizer)
    corpus = text.draw(N_SEQUENCES, 0)
    last = architecture.blocks[-1].module
    ids: list[Any] = []
    notes: list[int] = []

    def read(_: Any, args: Any, kwargs: Any) -> None:
        ids.append(kwargs["input_ids"])

    def add(_: Any, args: Any, kwargs: Any) -> Any:
        note = kwargs.get("note", ids[-1].sum())
        notes.append(int(note))
        return args, {**kwargs, "note": note}

    trunk: Any = loaded.model.base_model
    trunk.register_forward_pre_hook(read, with_kwargs=True)
    last.register_forward_pre_hook(add, with_kwargs=True)
    list(Walk(loaded.model, architecture, corpus, batch_size=3).layers())
    expected = [int(batch.input_ids.sum()) for batch in corpus.batches(3)]
    assert notes == expected * 2


def test_a_layer_may_be_changed_once_the_text_has_passed_it(tokenizer: Any) -> None:
    loaded, architecture, text = made("llama", tokenizer)
    corpus = text.draw(N_SEQUENCES, 0)
    whole = calibrate(loaded, architecture, text, n_sequences=N_SEQUENCES)
    for each in Walk(loaded.model, architecture, corpus).layers():
        assert torch.equal(each.moments.fit.second, whole.layers[each.index].fit.second)
        with torch.no_grad():
            for parameter in architecture.blocks[each.index].module.parameters():
                parameter.zero_()


def test_of_a_layer_that_was_let_go_nothing_stays(tokenizer: Any) -> None:
    loaded, architecture, text = made("qwen2", tokenizer)
    gone: list[weakref.ref[Any]] = []
    for each in Walk(loaded.model, architecture, text.draw(10, 0)).layers():
        gc.collect()
        assert all(ref() is None for ref in gone)
        gone.append(weakref.ref(each.moments))
        del each
    assert len(gone) == N_LAYERS


def test_only_the_layers_that_are_wanted_are_gathered(tokenizer: Any) -> None:
    loaded, architecture, text = made("gpt2", tokenizer)
    corpus = text.draw(N_SEQUENCES, 0)
    whole = calibrate(loaded, architecture, text, n_sequences=N_SEQUENCES)
    (only,) = Walk(loaded.model, architecture, corpus).layers({1})
    assert only.index == 1
    assert torch.equal(only.moments.all.second, whole.layers[1].all.second)
    assert list(Walk(loaded.model, architecture, corpus).layers(())) == []


@pytest.mark.parametrize("spilled", [False, True])
def test_the_text_passes_a_block_once_more(spilled: bool, tokenizer: Any, tmp_path: Path) -> None:
    """What passed in it gives its moments again."""
    loaded, architecture, text = made("gemma2", tokenizer)
    corpus = text.draw(N_SEQUENCES, 0)
    walk = Walk(
        loaded.model.to(torch.bfloat16),
        architecture,
        corpus,
        batch_size=6,
        spill=tmp_path if spilled else None,
    )
    n_layers = 0
    for each in walk.layers():
        rows = torch.cat([seen["h"][batch.keep] for batch, seen in each.runs()]).double()
        assert len(rows) == corpus.n_tokens
        found = each.moments.all
        torch.testing.assert_close(found.mean, rows.mean(dim=0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.second, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)
        n_layers += 1
    assert n_layers == N_LAYERS
    assert not list(tmp_path.iterdir())


def test_a_layer_that_is_not_finite_is_told_when_its_turn_has_come(tokenizer: Any) -> None:
    loaded, architecture, text = made("opt", tokenizer)
    with torch.no_grad():
        loaded.model.model.decoder.layers[1].fc1.bias[[3, 8]] = torch.inf  # type: ignore[union-attr,index]
    walk = Walk(loaded.model, architecture, text.draw(20, 0)).layers()
    assert next(walk).index == 0
    with refused_naming("layer 1", "2 neurons", "dtype='float32'"):
        next(walk)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())
