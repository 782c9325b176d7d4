"""How well an autoencoder gives tokens back on unseen text, and what is simpler does.

Everything is measured on states normalised in each frame, over the same tokens: the windows of the
unseen text cut to lengths drawn by seed, outliers left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projector.progress import Progress
from projector.residual.particles.autoencoder.model import Autoencoder
from projector.residual.particles.autoencoder.records import CODES, Evaluation, Score
from projector.residual.particles.records import Frame

# Windows are grouped by length up to these.
_UP_TO = (16, 32, 64, 128)
# Of the regression behind untrained queries: this part of the mean variance is added to each.
_RIDGE = 1e-4
_MOST_READOUT_WINDOWS = 64


@dataclass(frozen=True, eq=False)
class Window:
    """One window of text, normalised.

    Attributes:
        states: (F, T, H) float32.
        keep: (T,) bool, no outliers.
    """

    states: Tensor
    keep: Tensor

    def cut(self, start: int, n_tokens: int) -> Window:
        """Some of its tokens."""
        rows = slice(start, start + n_tokens)
        return Window(self.states[:, rows], self.keep[rows])


def principal_components(windows: Sequence[Window]) -> Tensor:
    """(H, H) float32: directions as columns, the widest first, over all frames and kept tokens.

    Not centred: normalised states have mean 0 in each frame.
    """
    n_hidden = windows[0].states.shape[-1]
    products = torch.zeros(n_hidden, n_hidden, dtype=torch.float64)
    for each in windows:
        rows = each.states[:, each.keep].reshape(-1, n_hidden)
        products += (rows.T @ rows).double()
    axes = torch.linalg.eigh(products).eigenvectors.flip(1)
    # The largest number of each is positive, so that equal runs give equal axes.
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return (axes * largest.sign()).float()


@torch.no_grad()
def evaluate(
    network: Autoencoder,
    train: Sequence[Window],
    held_out: Sequence[Window],
    *,
    axes: Tensor,
    shortest: int,
    unseen: str,
    seed: int,
    progress: Progress,
) -> Evaluation:
    """R² per token of the network and of what it is compared with.

    Args:
        train: text of the training, which principal components and the linear map behind untrained
            queries come from.
        held_out: unseen text.
        axes: (H, H), principal components of ``train``.
        shortest: least tokens of a window, where it has as many.
        unseen: what the unseen text is.
        seed: of the lengths that windows are cut to, and of the untrained network.
    """
    generator = torch.Generator().manual_seed(seed)
    untrained = Autoencoder(
        network.n_hidden, network.n_particles, network.width, generator=generator
    )
    draws = np.random.default_rng(seed)
    progress.begin("Testing", len(held_out), "windows")
    readout = _readout(untrained, _shortened(train[:_MOST_READOUT_WINDOWS], shortest, draws))
    n_frames = len(train[0].states)
    errors: dict[int, Tensor] = {}
    n_tokens = n_sequences = 0
    for window in _shortened(held_out, shortest, draws):
        progress.advance(1)
        states, keep = window.states, window.keep
        if not bool(keep.any()):
            continue
        n_numbers = network.n_particles * network.width // states.shape[1]
        given = untrained(states)
        found = {
            "autoencoder": network(states),
            "pca_same_size": _kept(states, axes[:, :n_numbers]),
            "pca_width": _kept(states, axes[:, : network.width]),
            "untrained": _with_one(given) @ readout,
            "mean": torch.zeros_like(states),
        }
        squares = torch.stack(
            [(found[code] - states)[:, keep].double().square().sum(dim=(1, 2)) for code in CODES]
        )
        group = next((n for n in _UP_TO if states.shape[1] <= n), states.shape[1])
        errors[group] = errors.get(group, torch.zeros_like(squares)) + squares
        n_tokens += int(keep.sum())
        n_sequences += 1
    progress.end()
    every = sum(errors.values(), torch.zeros(len(CODES), n_frames, dtype=torch.float64))
    layers = [None, *range(n_frames - 1)]
    return Evaluation(
        n_sequences,
        n_tokens,
        _score("all", None, every.sum(dim=1)),
        tuple(_score(Frame.of(at).name, at, every[:, i]) for i, at in enumerate(layers)),
        {n: _score("all", None, errors[n].sum(dim=1)) for n in sorted(errors)},
        unseen,
    )


def _shortened(
    windows: Sequence[Window], shortest: int, draws: np.random.Generator
) -> list[Window]:
    """Windows cut to lengths drawn evenly, from their beginning, as a prompt has it."""
    found = []
    for each in windows:
        longest = len(each.keep)
        found.append(each.cut(0, int(draws.integers(min(shortest, longest), longest + 1))))
    return found


def _kept(states: Tensor, axes: Tensor) -> Tensor:
    return (states @ axes) @ axes.T


def _with_one(values: Tensor) -> Tensor:
    return torch.cat([values, torch.ones_like(values[..., :1])], dim=-1)


def _readout(network: Autoencoder, windows: Sequence[Window]) -> Tensor:
    """(H + 1, H): the affine map from what a network gives to the tokens, by least squares."""
    n = network.n_hidden + 1
    own, cross = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n - 1, dtype=torch.float64)
    for each in windows:
        rows = _with_one(network(each.states))[:, each.keep].reshape(-1, n).double()
        own += rows.T @ rows
        cross += rows.T @ each.states[:, each.keep].reshape(-1, n - 1).double()
    own += _RIDGE * own.diagonal().mean() * torch.eye(n, dtype=torch.float64)
    return torch.linalg.solve(own, cross).float()


def _score(frame: str, layer: int | None, errors: Tensor) -> Score:
    """A score of squared errors (n_codes,), the mean vector's last."""
    whole = float(errors[-1])
    parts = [1 - float(each) / whole if whole else 0.0 for each in errors]
    return Score(frame, layer, *parts)
