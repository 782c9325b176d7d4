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
from projector.residual.particles.autoencoder.records import COMPARED, Evaluation, Margin, Score


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


def _score(autoencoder: float, simpler: float, difference: float, error: float | None) -> Score:
    margins = {name: Margin(1.0, 0.0, 9) for name in COMPARED}
    margins["pca_same_size"] = Margin(difference, error, 9)
    return Score("all", None, autoencoder, simpler, 0.1, 0.1, 0.1, margins=margins)


@pytest.mark.parametrize(
    ("score", "is_warned"),
    [
        (_score(0.9, 0.8, 0.1, 0.04), False),
        (_score(0.9, 0.8, 0.1, 0.06), True),
        (_score(0.9, 0.9, 0.0, 0.0), True),
        (_score(0.8, 0.9, -0.1, 0.01), True),
        # Of one window nothing is known of the error.
        (_score(0.9, 0.8, 0.1, None), True),
        (_score(-0.1, -0.2, 0.1, 0.01), True),
    ],
)
def test_what_is_not_clearly_worse_is_warned_of(score: Score, is_warned: bool) -> None:
    found = Evaluation(1, 1, score, (score,), {}, "other text").warning
    assert (found is not None) == is_warned
    # One sentence or two for people, with the typographic minus.
    assert found is None or (found.endswith(".") and "-0" not in found)


def test_lengths_at_which_it_is_no_better_are_warned_of() -> None:
    good, poor = _score(0.9, 0.8, 0.1, 0.01), _score(0.9, 1.0, -0.1, 0.01)
    found = Evaluation(1, 1, good, (good,), {16: poor, 32: poor, 64: good}, "other text").warning
    assert found is not None
    assert " 32 " in found
    assert "worse than" in found
    assert Evaluation(1, 1, good, (good,), {16: good}, "other text").warning is None


def _evaluate(network: Autoencoder, train: list[Window], held_out: list[Window]) -> Evaluation:
    return evaluate(
        network,
        train,
        held_out,
        axes=principal_components(train),
        shortest=8,
        unseen="other text",
        seed=0,
        progress=Silent(),
    )


def test_margins_are_paired_over_windows() -> None:
    train, held_out = _windows(50, 0), _windows(9, 1)
    network = Autoencoder(6, 16, 1, basis=principal_components(train)).requires_grad_(False)
    found = _evaluate(network, train, held_out)
    alone = [_evaluate(network, train, [each]).total for each in held_out]
    apart = np.array([each.autoencoder - each.pca_width for each in alone])
    margin = found.total.margins["pca_width"]
    assert margin.difference == pytest.approx(apart.mean(), abs=1e-6)
    assert margin.error == pytest.approx(apart.std(ddof=1) / 3, abs=1e-6)
    assert margin.n_windows == 9
    assert margin.is_better
    # It is principal components' equal in the beginning, and one window says nothing of an error.
    assert not found.total.margins["pca_same_size"].is_better
    assert alone[0].margins["pca_width"].error is None


def test_principal_components_of_each_frame_keep_more_where_frames_differ() -> None:
    train, held_out = _windows(50, 0), _windows(9, 1)
    for each in (*train, *held_out):
        # The second frame is wide where the first is narrow.
        each.states[1] = each.states[1].flip(-1)
    network = Autoencoder(6, 16, 1).requires_grad_(False)
    found = _evaluate(network, train, held_out)
    rows = torch.cat([each.states[1, each.keep] for each in train]).numpy()
    unseen = torch.cat([each.states[1, each.keep] for each in held_out]).numpy()
    pca = PCA(2).fit(rows)
    left = unseen - pca.inverse_transform(pca.transform(unseen))
    own = 1 - (left**2).sum() / (unseen**2).sum()
    assert found.frames[1].pca_per_frame == pytest.approx(own, abs=5e-3)
    assert found.total.pca_per_frame > found.total.pca_same_size + 0.1


def test_nothing_is_said_where_every_token_is_an_outlier() -> None:
    train = _windows(20, 0)
    none = [Window(each.states, torch.zeros_like(each.keep)) for each in _windows(3, 1)]
    found = _evaluate(Autoencoder(6, 16, 1).requires_grad_(False), train, none)
    for each in (found.total, *found.frames):
        assert (each.autoencoder, each.pca_same_size, each.mean) == (None, None, None)
    assert found.reason is not None
    assert found.warning is not None
    assert (found.n_sequences, found.n_tokens) == (0, 0)
    assert Evaluation.of_dict(found.as_dict()) == found


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
