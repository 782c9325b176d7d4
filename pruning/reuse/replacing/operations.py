"""What MLPs compute, in multiply-adds a token.

Between streams H wide a neuron costs a vector of length H for each matrix that makes it, and one
for the column that it writes by:

    c = 3 H where MLPs are gated, 2 H where they are not.

A layer of which K neurons are computed, and which writes C columns from neurons of earlier layers,
each a sum of k of them, costs

    c K + (H + m) C + H b,

where m is k, or 0 for one partner, whose factor is multiplied into the column beforehand; and b is
1 if the output is given a constant that it did not have, else 0, for that is where shifts go.
Neurons that take their values from the same one partner share its column, for their columns can be
added. So reuse saves c − H − m a neuron where removal saves c: at equal operations it has to do
without c / (c − H − m) times as many neurons, 3/2 where MLPs are gated and 2 where they are not.

The activation function, the product of gate and up, and biases that the model has anyway are left
out: they are no matrix products, and H times less.
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
    """What one layer's MLP computes.

    Attributes:
        n_hidden: H.
        n_made_by: matrices that make a neuron: 2 where the MLP is gated, else 1.
        n_computed: K, neurons that are computed.
        n_columns: C, columns written from partners.
        n_summed: m, multiply-adds that make the value that such a column is written by.
        has_new_constant: whether its output has a constant that the dense one lacks.
    """

    n_hidden: int
    n_made_by: int
    n_computed: int
    n_columns: int = 0
    n_summed: int = 0
    has_new_constant: bool = False

    @property
    def neuron(self) -> int:
        """c, of a computed neuron."""
        return (self.n_made_by + 1) * self.n_hidden

    @property
    def products(self) -> int:
        """Of matrix products, which PyTorch's counter counts: c K + (H + m) C."""
        return self.neuron * self.n_computed + (self.n_hidden + self.n_summed) * self.n_columns

    @property
    def total(self) -> int:
        """c K + (H + m) C + H b."""
        return self.products + self.n_hidden * self.has_new_constant


def summed(n_partners: int) -> int:
    """m, of k partners: one has its factor in the column."""
    return n_partners if n_partners > 1 else 0


def n_made_by(mlp: Mlp) -> int:
    """Matrices that make a neuron: gate and up are two, also where the model holds them fused."""
    return 2 if mlp.fused else len(mlp.inputs)


def dense_operations(architecture: Architecture) -> tuple[LayerOperations, ...]:
    """Of every layer of a model as it is."""
    return tuple(
        LayerOperations(architecture.n_hidden, n_made_by(mlp), mlp.n_neurons)
        for mlp in mlps_of(architecture)
    )


def total_of(layers: Sequence[LayerOperations]) -> int:
    """Of all MLPs."""
    return sum(layer.total for layer in layers)


def count_products(model: nn.Module, names: Sequence[str], *, n_tokens: int = 8) -> int:
    """Multiply-adds a token of the matrix products that some modules run, by PyTorch's counter.

    The model really runs, on ``n_tokens`` tokens; a multiplication and an addition are one.

    Args:
        names: of modules within ``model``.
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
