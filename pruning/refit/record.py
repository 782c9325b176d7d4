"""What a refit is: a record that tells what the weights that stay do about those that went.

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
    """One layer's output projection, to be fitted anew.

    Attributes:
        fit, held_out: products of the kept neurons and the targets over disjoint tokens.
        start: W₀, the weights as they are, (H, K) float64.
        centred: whether a bias can absorb what removed neurons gave on average.
    """

    fit: Products
    held_out: Products
    start: Tensor
    centred: bool


class Train(Protocol):
    """Trains every MLP of ``pruned``, in place."""

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
    """What kept weights do, by name. With neither ``output`` nor ``train`` they stay as they are.

    Attributes:
        name: as users write it.
        help: what the neurons that stay do, in a few words for people.
        source: the papers; empty where the idea is common.
        output: the output projection (H, K) float64 of one layer, and the bias (H,) or None.
        train: fits all layers at once, in steps.
        needs_bias: whether it is nothing where the MLP's output has no place for a bias.
        needs_regular_moments: whether too few calibration tokens leave it nothing to invert.
        dash: of its lines in a report's figure, in Plotly's words.
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
        """Whether it does anything; then a bias, where there can be one, absorbs means."""
        return self.output is not None or self.train is not None

    @property
    def trains(self) -> bool:
        """Whether it takes steps, and the dense model's streams."""
        return self.train is not None
