"""Optimal brain surgery: remove neurons one by one, and refit all others each time."""

from __future__ import annotations

import torch

from pruning.methods.method import Layer, Method
from pruning.methods.plan import LayerPlan


def plan_layer(layer: Layer, n_kept: int) -> LayerPlan:
    """Remove the neurons whose loss the other neurons make up for best."""
    n_removed = layer.n_neurons - n_kept
    kept = torch.ones(layer.n_neurons, dtype=torch.bool)
    kept[layer.elimination(n_removed).order[:n_removed]] = False
    return LayerPlan(layer.n_neurons, tuple(kept.nonzero()[:, 0].tolist()))


OBS = Method(
    name="obs",
    help="one by one, the neuron whose loss the others make up for best",
    source="Hassibi and Stork 1992, Kurtić et al. 2023 (arXiv:2302.04089)",
    reads=("weights", "regular moments"),
    plan=plan_layer,
    costs=Layer.rising_costs,
    matrices=3.5,
)
