"""R² on unseen text and what it is compared with; how states are normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from projector.errors import UserError
from projector.progress import Silent
from projector.residual.particles.autoencoder.evaluation import (
    Window,
    evaluate,
    principal_components,
)
from projector.residual.particles.autoencoder.model import Autoencoder
from projector.residual.particles.autoencoder.normalising import Normaliser
from projector.residual.particles.autoencoder.records import Evaluation, Score


def _windows(n: int, seed: int) -> list[Window]:
    """Windows of 8 tokens of 6 numbers in 2 frames; the last token counts nowhere."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5, 0.2])
    states = torch.randn(n, 2, 8, 6, generator=generator) * sizes
    keep = torch.ones(8, dtype=torch.bool)
    keep[-1] = False
    states[:, :, -1] *= 3
    return [Window(each, keep) for each in states]


def test_baselines_are_those_of_principal_components() -> None:
    train, held_out = _windows(50, 0), _windows(9, 1)
    axes = principal_components(train)
    # 16 numbers for 8 tokens: two a token.
    network = Autoencoder(6, 16, 1, basis=axes).requires_grad_(False)
    found = evaluate(
        network,
        train,
        held_out,
        axes=axes,
        shortest=8,
        unseen="other text",
        seed=0,
        progress=Silent(),
    )

    def rows(windows: list[Window]) -> np.ndarray:
        return torch.cat([each.states[:, each.keep].reshape(-1, 6) for each in windows]).numpy()

    for n, given in ((1, found.total.pca_width), (2, found.total.pca_same_size)):
        # scikit-learn's own, whose data has a mean that is all but 0.
        pca = PCA(n).fit(rows(train))
        left = rows(held_out) - pca.inverse_transform(pca.transform(rows(held_out)))
        assert given == pytest.approx(1 - (left**2).sum() / (rows(held_out) ** 2).sum(), abs=5e-3)
    assert found.total.autoencoder == pytest.approx(found.total.pca_same_size, abs=0.02)
    assert found.total.untrained < found.total.pca_same_size - 0.02
    assert (found.n_sequences, found.n_tokens) == (9, 63)
    assert list(found.by_length) == [16]
    assert Evaluation.of_dict(found.as_dict()) == found


@pytest.mark.parametrize(
    ("scores", "is_warned"),
    [
        ((0.9, 0.8, 0.3, 0.5), False),
        ((0.8, 0.8, 0.3, 0.5), True),
        ((0.4, 0.3, 0.2, 0.5), True),
        ((-0.1, -0.2, -0.2, -0.3), True),
    ],
)
def test_whatever_is_no_worse_is_warned_of(scores: tuple[float, ...], is_warned: bool) -> None:
    total = Score("all", None, *scores)
    found = Evaluation(1, 1, total, (total,), {}, "other text").warning
    assert (found is not None) == is_warned
    # One sentence or two for people, with the typographic minus.
    assert found is None or (found.endswith(".") and "-0" not in found)


def test_lengths_at_which_it_is_no_better_are_warned_of() -> None:
    good, poor = Score("all", None, 0.9, 0.8, 0.3, 0.5), Score("all", None, 0.9, 1.0, 0.3, 0.5)
    found = Evaluation(1, 1, good, (good,), {16: poor, 32: poor, 64: good}, "other text").warning
    assert found is not None
    assert " 32 " in found
    assert Evaluation(1, 1, good, (good,), {16: good}, "other text").warning is None


def test_normalised_states_have_one_scale_and_outliers_are_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 200, 8, generator=generator)
    states = states * torch.tensor([1.0, 10.0, 200.0])[:, None, None] + 3
    states[1, 0] = 1e6
    found = Normaliser.of([states[:, :120], states[:, 120:]])
    normal = found.apply(states)
    assert found.is_usual(states).tolist() == [False] + [True] * 199
    kept = normal[:, 1:]
    assert torch.allclose(kept.mean(dim=1), torch.zeros(3, 8), atol=1e-4)
    assert torch.allclose(kept.square().mean(dim=(1, 2)), torch.ones(3), atol=1e-2)
    assert float(normal.norm(dim=-1).max()) == pytest.approx(4 * 8**0.5, rel=1e-4)
    usual = states[:, 1:]
    assert torch.allclose(found.undo(found.apply(usual)), usual, rtol=1e-3, atol=1e-2)
    states[2, 5, 3] = torch.nan
    assert bool(found.apply(states).isfinite().all())
    with pytest.raises(UserError):
        Normaliser.of([torch.ones(3, 5, 8)])
