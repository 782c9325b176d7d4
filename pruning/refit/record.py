"""The record of a refit: how the weights that stay make up for the removed ones.

A refit is one module of this room that makes a record, and one line of the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from projector.model.architecture.records import Architecture
from projector.progress import Progress
from pruning.refit.products import Products
from pruning.refit.streams import DenseStreams


@dataclass(frozen=True)
class Fit:
    """The data for refitting one layer's output projection.

    Attributes:
        fit, held_out: products of the kept neurons and the targets over disjoint tokens.
        start: W₀, the current weights, (H, K) float64.
        centred: whether a bias can absorb the mean output of removed neurons.
    """

    fit: Products
    held_out: Products
    start: Tensor
    centred: bool


class Train(Protocol):
    """Trains every MLP of ``pruned`` in place."""

    def __call__(
        self,
        dense: DenseStreams,
        pruned: nn.Module,
        pruned_architecture: Architecture,
        *,
        n_steps: int,
        seed: int,
        progress: Progress,
    ) -> None: ...


@dataclass(frozen=True)
class Refit:
    """A way to refit the kept weights. Without ``output`` and ``train`` they stay unchanged.

    Attributes:
        name: as users write it.
        help: how the kept weights change, in a few words for people.
        source: the papers; empty for common ideas.
        output: computes the output projection (H, K) float64 of one layer, and the bias (H,) or
            None.
        train: fits all layers together, in steps.
        needs_bias: whether it does nothing if the MLP's output can't have a bias.
        needs_regular_moments: whether it inverts moments, which too few calibration tokens leave
            singular.
        dash: Plotly's dash style of its lines in a report's figure.
    """

    name: str
    help: str
    source: str = ""
    output: Callable[[Fit], tuple[Tensor, Tensor | None]] | None = None
    train: Train | None = None
    needs_bias: bool = False
    needs_regular_moments: bool = False
    dash: str = "longdash"

    @property
    def changes_weights(self) -> bool:
        """Whether it changes weights; if so, a bias absorbs means where the model can have one."""
        return self.output is not None or self.train is not None

    @property
    def trains(self) -> bool:
        """Whether it trains in steps, and needs the dense model's streams."""
        return self.train is not None
