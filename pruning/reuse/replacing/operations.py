"""Count the multiply-adds of MLPs per token.

With a stream of width H, a neuron costs a vector of length H in each input matrix, and one in the
output projection:

    c = 3 H where MLPs are gated, 2 H where they are not.

A layer with K computed neurons, which also writes C columns from neurons of earlier layers, each a
sum of k of them, costs

    c K + (H + m) C + H b,

where m is k, or 0 for one partner, whose factor is multiplied into the column beforehand; and b is
1 if the output gets a new constant, which absorbs shifts, else 0. Neurons that take their values
from the same single partner share its column, because their columns can be added. So reuse saves c
− H − m per neuron while removal saves c: at equal operations, reuse has to replace c / (c − H − m)
times as many neurons, 3/2 in gated MLPs and 2 in other MLPs.

The activation function, the product of gate and up, and biases of the dense model are left out:
they aren't matrix products, and cost H times less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from projector.model.architecture.records import Architecture, Mlp
from pruning.calibration.mlps import mlps_of


@dataclass(frozen=True)
class LayerOperations:
    """The operations of one layer's MLP.

    Attributes:
        n_hidden: H.
        n_made_by: number of input matrices: 2 if the MLP is gated, else 1.
        n_computed: K, number of computed neurons.
        n_columns: C, number of columns written from partners.
        n_summed: m, multiply-adds for the value of such a column.
        has_new_constant: whether its output has a constant that the dense output lacks.
    """

    n_hidden: int
    n_made_by: int
    n_computed: int
    n_columns: int = 0
    n_summed: int = 0
    has_new_constant: bool = False

    @property
    def neuron(self) -> int:
        """c, the cost of a computed neuron."""
        return (self.n_made_by + 1) * self.n_hidden

    @property
    def products(self) -> int:
        """Multiply-adds of matrix products, as PyTorch counts them: c K + (H + m) C."""
        return self.neuron * self.n_computed + (self.n_hidden + self.n_summed) * self.n_columns

    @property
    def total(self) -> int:
        """c K + (H + m) C + H b."""
        return self.products + self.n_hidden * self.has_new_constant


def summed(n_partners: int) -> int:
    """m for k partners; a single partner's factor is in the column."""
    return n_partners if n_partners > 1 else 0


def n_made_by(mlp: Mlp) -> int:
    """Number of input matrices; gate and up count as two, also if the model holds them fused."""
    return 2 if mlp.fused else len(mlp.inputs)


def dense_operations(architecture: Architecture) -> tuple[LayerOperations, ...]:
    """The operations of every layer of a dense model."""
    return tuple(
        LayerOperations(architecture.n_hidden, n_made_by(mlp), mlp.n_neurons)
        for mlp in mlps_of(architecture)
    )


def total_of(layers: Sequence[LayerOperations]) -> int:
    """The multiply-adds of all MLPs."""
    return sum(layer.total for layer in layers)


def count_products(model: nn.Module, names: Sequence[str], *, n_tokens: int = 8) -> int:
    """Count the multiply-adds per token of some modules' matrix products, by PyTorch's counter.

    The model runs on ``n_tokens`` tokens; a multiplication and an addition count as one.

    Args:
        names: names of modules within ``model``.
    """
    device = next(model.parameters()).device
    ids = torch.arange(n_tokens, device=device)[None]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(input_ids=ids)
    counts = counter.get_flop_counts()
    root = type(model).__name__
    total = sum(sum(counts.get(f"{root}.{name}", {}).values()) for name in names)
    return total // (2 * n_tokens)
