"""Evaluate how well an autoencoder reconstructs tokens of unseen text, compared with simpler
methods.

Everything is measured on states normalised in each frame, over the same tokens: the windows of the
unseen text, cut to random lengths, without outliers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projector.progress import Progress
from projector.residual.particles.autoencoder.model import Autoencoder
from projector.residual.particles.autoencoder.records import (
    CODES,
    COMPARED,
    Evaluation,
    Margin,
    Score,
)
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
        keep: (T,) bool, tokens that are not outliers.
    """

    states: Tensor
    keep: Tensor

    def cut(self, start: int, n_tokens: int) -> Window:
        """Select some of its tokens."""
        rows = slice(start, start + n_tokens)
        return Window(self.states[:, rows], self.keep[rows])


def principal_components(windows: Sequence[Window], frame: int | None = None) -> Tensor:
    """Principal components, (H, H) float32, as columns, the largest variance first, over the kept
    tokens of all frames.

    They are not centred, because normalised states have mean 0 in each frame.

    Args:
        frame: the frame to use; None for all.
    """
    n_hidden = windows[0].states.shape[-1]
    frames = slice(None) if frame is None else slice(frame, frame + 1)
    products = torch.zeros(n_hidden, n_hidden, dtype=torch.float64)
    for each in windows:
        rows = each.states[frames, each.keep].reshape(-1, n_hidden)
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
    """Compute R² per token of the network and of simpler methods.

    Args:
        train: training text, for the principal components and the linear map after untrained
            queries.
        held_out: unseen text.
        axes: (H, H), the principal components of ``train``.
        shortest: smallest number of tokens in a window, if it has as many.
        unseen: description of the unseen text.
        seed: seed of the window lengths and the untrained network.
    """
    generator = torch.Generator().manual_seed(seed)
    untrained = Autoencoder(
        network.n_hidden, network.n_particles, network.width, generator=generator
    )
    draws = np.random.default_rng(seed)
    progress.begin("Testing", len(held_out), "windows")
    readout = _readout(untrained, _shortened(train[:_MOST_READOUT_WINDOWS], shortest, draws))
    windows = [each for each in _shortened(held_out, shortest, draws) if bool(each.keep.any())]
    per_frame = _errors_per_frame(train, windows, network.n_particles * network.width)
    errors: list[Tensor] = []
    for window, of_frames in zip(windows, per_frame, strict=True):
        progress.advance(1)
        states, keep = window.states, window.keep
        n_numbers = network.n_particles * network.width // states.shape[1]
        found = {
            "autoencoder": network(states),
            "pca_same_size": _kept(states, axes[:, :n_numbers]),
            "pca_width": _kept(states, axes[:, : network.width]),
            "untrained": _with_one(untrained(states)) @ readout,
            "mean": torch.zeros_like(states),
        }
        squares = {
            code: (each - states)[:, keep].double().square().sum(dim=(1, 2))
            for code, each in found.items()
        }
        squares["pca_per_frame"] = of_frames
        errors.append(torch.stack([squares[code] for code in CODES]))
    progress.end()
    n_frames = len(train[0].states)
    every = torch.stack(errors) if errors else torch.zeros(0, len(CODES), n_frames).double()
    lengths = [len(each.keep) for each in windows]
    groups = torch.tensor([next((n for n in _UP_TO if own <= n), own) for own in lengths])
    layers = [None, *range(n_frames - 1)]
    return Evaluation(
        len(windows),
        sum(int(each.keep.sum()) for each in windows),
        _score("all", None, every.sum(dim=2)),
        tuple(_score(Frame.of(at).name, at, every[:, :, i]) for i, at in enumerate(layers)),
        {
            int(n): _score("all", None, every[groups == n].sum(dim=2))
            for n in groups.unique(sorted=True)
        },
        unseen,
    )


def _errors_per_frame(
    train: Sequence[Window], windows: Sequence[Window], n_numbers: int
) -> list[Tensor]:
    """Of each window (F,) float64, squared errors of principal components of each frame's own.

    Args:
        n_numbers: of a sequence.
    """
    n_frames = len(train[0].states)
    found = [torch.zeros(n_frames, dtype=torch.float64) for _ in windows]
    for frame in range(n_frames):
        axes = principal_components(train, frame)
        for own, each in zip(found, windows, strict=True):
            rows = each.states[frame, each.keep]
            kept = _kept(rows, axes[:, : n_numbers // len(each.keep)])
            own[frame] = (kept - rows).double().square().sum()
    return found


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
    """A score of windows' squared errors (n, n_codes)."""
    order = list(CODES)
    whole = errors[:, order.index("mean")]
    if not float(whole.sum()) > 0:
        nothing: dict[str, float | None] = dict.fromkeys(CODES)
        return Score(frame, layer, **nothing, margins={})
    kept = 1 - errors.sum(dim=0) / whole.sum()
    within = errors[whole > 0] / whole[whole > 0, None]
    margins = {}
    for code in COMPARED:
        apart = within[:, order.index(code)] - within[:, order.index("autoencoder")]
        n = len(apart)
        error = float(apart.std()) / math.sqrt(n) if n > 1 else None
        margins[code] = Margin(float(apart.mean()), error, n)
    return Score(frame, layer, **dict(zip(order, map(float, kept), strict=True)), margins=margins)
