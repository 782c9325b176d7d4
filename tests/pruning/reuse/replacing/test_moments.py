"""Moments of a layer and its partners are those of one pass in float64."""

from __future__ import annotations

from typing import Any

import torch

from projector.model.capture import collect
from pruning.calibration.text import is_held_out
from pruning.reuse.replacing.moments import Pairs, gather_moments, gather_scales, groups_of
from tests.pruning.reuse.replacing.subjects import subject, three_layers


def test_moments_across_layers_are_those_of_one_pass_in_float64(tokenizer: Any) -> None:
    given = subject(three_layers(), tokenizer)
    layers, numbers = torch.tensor([1, 0, 0, 1, 0]), torch.tensor([3, 30, 2, 39, 30])
    wanted = {1: Pairs.of(layers[1:3], numbers[1:3]), 2: Pairs.of(layers, numbers)}
    # Each partner once, in order, and found again.
    assert wanted[2].layer.tolist() == [0, 0, 1, 1]
    assert wanted[2].neuron.tolist() == [2, 30, 3, 39]
    assert wanted[2].place(layers, numbers).tolist() == [2, 1, 0, 3, 1]
    (batch,) = given.corpus.batches(100)
    taps = {i: block.taps["mlp_post"] for i, block in enumerate(given.architecture.blocks)}
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    seen = {i: h[batch.keep].double() for i, h in collect(given.model, taps, inputs).items()}
    held_out = is_held_out(batch)[:, None].expand_as(batch.keep)[batch.keep]
    for n_bytes in (1, 10**9):
        found = dict(
            gather_moments(
                given.model,
                given.architecture,
                given.corpus,
                wanted,
                batch_size=7,
                n_bytes=n_bytes,
            )
        )
        assert sorted(found) == [1, 2]
        for layer, moments in found.items():
            pairs = wanted[layer]
            columns = [
                seen[int(i)][:, [int(n)]] for i, n in zip(pairs.layer, pairs.neuron, strict=True)
            ]
            z = torch.cat([seen[layer], *columns], dim=1)
            for part, mine in ((False, moments.fit), (True, moments.held_out)):
                rows = z[held_out == part]
                assert mine.n_tokens == len(rows)
                scale = rows.square().mean(dim=0).sqrt()
                error = (mine.second - rows.T @ rows / len(rows)) / torch.outer(scale, scale)
                assert float(error.abs().max()) < 1e-5
                assert float(((mine.mean - rows.mean(dim=0)) / scale).abs().max()) < 1e-5
    scales = gather_scales(given.model, given.architecture, given.corpus, batch_size=7)
    for layer, h in seen.items():
        given_scales = scales[layer]
        variance = h.var(dim=0, correction=0)
        torch.testing.assert_close(given_scales.variance, variance, rtol=1e-9, atol=0)
        about_zero = given_scales.power(centred=False)
        torch.testing.assert_close(about_zero, h.square().mean(dim=0), rtol=1e-9, atol=0)


def test_layers_share_a_pass_while_their_sums_fit() -> None:
    assert groups_of({1: 10, 2: 10, 4: 20, 5: 10}, 1600) == [[1, 2], [4], [5]]
    assert groups_of({}, 10) == []
