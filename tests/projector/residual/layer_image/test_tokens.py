"""The states that an image of layers is of: a token's, or the mean without outliers."""

from __future__ import annotations

import torch

from projector.residual.layer_image.tokens import choose_states


def test_the_mean_leaves_out_outliers_and_says_which() -> None:
    states = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    states[2, 0] *= 100
    tokens = ["<s>", "a", "b", "c", "d"]
    mean = choose_states(states, tokens, None, prompt="B")
    assert torch.allclose(mean.vectors, states[:, 1:].mean(dim=1), atol=1e-6)
    assert [each.position for each in mean.left_out] == [0]
    assert "‘<s>’" in mean.note
    assert "4 tokens of B" in mean.words
    kept = choose_states(states, tokens, None, keep_outliers=True)
    assert torch.allclose(kept.vectors, states.mean(dim=1), atol=1e-5)
    assert not kept.note
    # Those of another model, in place of its own.
    given = choose_states(states[:, 1:], tokens[1:], None, left_out=mean.left_out)
    assert torch.allclose(given.vectors, states[:, 2:].mean(dim=1), atol=1e-6)
    one = choose_states(states, tokens, 3, prompt="A")
    assert torch.equal(one.vectors, states[:, 3])
    assert one.words == "token 3 ‘c’ of A"
