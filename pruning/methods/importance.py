"""The baselines: one score per neuron; neurons with the lowest scores are removed.

Each is a published score, in its form for whole neurons. N is the layer's neurons, H the width of
the residual stream, w_j the column of the output projection that neuron j writes with, h_j its
activation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from projector.model.architecture.weights import MlpWeights
from pruning.calibration.moments import Moments
from pruning.methods.method import Method


def random_scores(n_neurons: int, generator: torch.Generator) -> Tensor:
    """Uniform scores, (N,) float64: any method has to do better."""
    return torch.rand(n_neurons, generator=generator, dtype=torch.float64)


def magnitude(weights: MlpWeights) -> Tensor:
    """L2 norm of all input and output weights of neuron j; (N,) float64.

    Han et al. 2015 (arXiv:1506.02626), by structures as in Li et al. 2017 (arXiv:1608.08710).
    """
    squares = weights.output.double().pow(2).sum(dim=0)
    for matrix in weights.inputs:
        squares = squares + matrix.double().pow(2).sum(dim=1)
    return squares.sqrt().cpu()


def activation(moments: Moments) -> Tensor:
    """L2 norm of the neuron's activation over tokens, √E[h_j²]; (N,) float64.

    The activation-based width importance of Muralidharan et al. 2024 (arXiv:2407.14679).
    """
    return moments.second.diagonal().clamp_min(0).sqrt()


def wanda(moments: Moments, weights: MlpWeights) -> Tensor:
    """Σ_i |W_ij| · ‖h_j‖₂, the sum of the scores in a column; (N,) float64.

    Sun et al. 2023 (arXiv:2306.11695), by structures as An et al. 2023 (arXiv:2312.11983) compare
    with.
    """
    return weights.output.double().abs().sum(dim=0).cpu() * activation(moments)


def flap(moments: Moments, weights: MlpWeights) -> Tensor:
    """Var(h_j) · ‖w_j‖₂²: the loss at the output if a bias absorbs the mean; (N,) float64.

    An et al. 2023 (arXiv:2312.11983), equation 5.
    """
    variance = moments.covariance.diagonal().clamp_min(0)
    return variance * weights.output.double().pow(2).sum(dim=0).cpu()


def standardized(scores: Tensor) -> Tensor:
    """(s − mean) / spread, so that scores of different layers can be compared.

    An et al. 2023 (arXiv:2312.11983), equation 6.
    """
    spread = scores.std()
    return (scores - scores.mean()) / spread if spread > 0 else scores - scores.mean()


RANDOM = Method(
    name="random",
    help="neurons drawn at random",
    reads=(),
    scores=lambda layer: random_scores(layer.n_neurons, layer.generator()),
    depends_on_seed=True,
)
MAGNITUDE = Method(
    name="magnitude",
    help="small weights",
    source="Han et al. 2015 (arXiv:1506.02626), Li et al. 2017 (arXiv:1608.08710)",
    scores=lambda layer: magnitude(layer.weights),
)
ACTIVATION = Method(
    name="activation",
    help="small activations",
    source="Muralidharan et al. 2024 (arXiv:2407.14679)",
    reads=("activations",),
    scores=lambda layer: activation(layer.moments),
)
WANDA = Method(
    name="wanda",
    help="small weight × activation",
    source="Sun et al. 2023 (arXiv:2306.11695), An et al. 2023 (arXiv:2312.11983)",
    reads=("weights", "activations"),
    scores=lambda layer: wanda(layer.moments, layer.weights),
)
FLAP = Method(
    name="flap",
    help="small variance × output weight",
    source="An et al. 2023 (arXiv:2312.11983)",
    reads=("weights", "activations"),
    scores=lambda layer: flap(layer.moments, layer.weights),
)
