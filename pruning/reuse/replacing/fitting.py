"""Fit a layer's output by least squares to the dense output, after neurons are replaced.

A column's value v is its partners' best linear prediction of the neuron it was chosen for:

    v = s aᵀp,   a = Cov(p)⁻¹ Cov(p, h_j).

Its scale s is free, because the column that is fitted to it makes up for it. It makes v vary as
much as its partners do on average; with one partner, v is the partner itself. With the scale of the
prediction, the ridge penalty below would shrink columns of weak partners far more than those of
kept neurons.

The output projection is then fitted from kept neurons and values together, [h_K, v], to the dense
MLP's output W h, by ridge regression that begins with W_K and Σ_j β_j w_j for the neurons j that
share the column, β_j = Cov(h_j, v) / Var(v); its damping is chosen on held-out calibration text
(:func:`pruning.refit.products.fit_output`). The fit's constant absorbs shifts. If the model's
outputs can't have a bias, there is no constant, and moments are taken about zero, as in any refit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.model.architecture.weights import MlpWeights
from pruning.calibration.moments import LayerMoments, Moments
from pruning.refit.closed_form import LEAST_SQUARES
from pruning.refit.products import Products
from pruning.refit.refits import refit_output
from pruning.reuse.replacing.choosing import Choice
from pruning.reuse.replacing.moments import Pairs


@dataclass(frozen=True)
class Values:
    """The coefficients by which columns take their values from partners.

    Attributes:
        coefficients: s a, (C, k) float64.
        shares: β of each replaced neuron with a column, (R,) float64; 0 for other neurons.
        r2: share of each such neuron's variance that its column's value explains, (R,) float64;
            share of the second moment if moments are taken about zero; NaN for other neurons.
    """

    coefficients: Tensor
    shares: Tensor
    r2: Tensor


@dataclass(frozen=True)
class FittedLayer:
    """A fitted layer.

    Attributes:
        choice: choice for its neurons; ``values``: values of its columns.
        output: (H, K), output columns of kept neurons.
        columns: (H, C), output columns of values.
        bias: (H,), or None.
    """

    choice: Choice
    values: Values
    output: Tensor
    columns: Tensor
    bias: Tensor | None


def fit_layer(
    choice: Choice,
    moments: LayerMoments,
    pairs: Pairs,
    dense: MlpWeights,
    *,
    with_bias: bool,
) -> FittedLayer:
    """Fit the output projection of one layer with replaced neurons.

    Args:
        moments: moments of its neurons and of ``pairs`` together.
        dense: the layer's dense weights, (H, N).
        with_bias: whether its output can have a bias.

    Returns:
        Weights in the dense weights' dtype, on the CPU.
    """
    place = pairs.place(choice.partner_layer, choice.partner_neuron) + choice.n_neurons
    output = dense.output.cpu().double()
    values = find_values(choice, moments.all, place, output, centred=with_bias)
    start = torch.zeros(len(output), choice.n_columns, dtype=torch.float64)
    has_column = choice.column >= 0
    written = output[:, choice.replaced[has_column]] * values.shares[has_column]
    start.index_add_(1, choice.column[has_column], written)
    start = torch.cat([output[:, choice.kept], start], dim=1)
    # One after the other, because each is made from a whole matrix.
    fit = products_of(moments.fit, choice, place, values.coefficients, output)
    held_out = products_of(moments.held_out, choice, place, values.coefficients, output)
    found, bias = refit_output(LEAST_SQUARES, dense.to("cpu"), start, (fit, held_out), with_bias)
    kind = dense.output.dtype
    n_kept = len(choice.kept)
    return FittedLayer(
        choice,
        values,
        found[:, :n_kept].to(kind).contiguous(),
        found[:, n_kept:].to(kind).contiguous(),
        None if bias is None else bias.to(kind),
    )


def find_values(
    choice: Choice, moments: Moments, place: Tensor, output: Tensor, *, centred: bool
) -> Values:
    """Find the coefficients of every column.

    A column that several neurons share is made for the neuron with the largest saving, Cov(h_j, p)²
    / Var(p) · ‖w_j‖².

    Args:
        place: (C, k) int64, indices of the partners among the moments' neurons.
        output: the dense output projection, (H, N) float64.
        centred: take moments about the mean; else about zero.
    """
    n_columns, k = place.shape
    has_column = choice.column >= 0
    own, column = choice.replaced[has_column], choice.column[has_column]
    shares = torch.zeros(len(choice.replaced), dtype=torch.float64)
    r2 = torch.full_like(shares, torch.nan)
    if not n_columns:
        return Values(torch.zeros(0, k, dtype=torch.float64), shares, r2)
    matrix = moments.covariance if centred else moments.second
    inner = matrix[place[:, :, None], place[:, None, :]]  # (C, k, k)
    cross = matrix[place[column], own[:, None]]  # (R', k)
    inverse = torch.linalg.pinv(inner, hermitian=True)
    solved = (inverse[column] @ cross[:, :, None])[:, :, 0]  # (R', k)
    told = (solved * cross).sum(dim=1) * output[:, own].square().sum(dim=0)
    main = torch.zeros(n_columns, dtype=torch.int64)
    for i in told.argsort(stable=True).tolist():
        main[column[i]] = i
    coefficients = _scaled(solved[main], inner)
    power = torch.einsum("ci,cij,cj->c", coefficients, inner, coefficients)[column]
    with_value = (coefficients[column] * cross).sum(dim=1)
    shares[has_column] = torch.where(power > 0, with_value / power, 0.0)
    whole = power * matrix[own, own]
    r2[has_column] = torch.where(whole > 0, with_value**2 / whole, 0.0).clamp(max=1)
    return Values(coefficients, shares, r2)


def _scaled(solved: Tensor, inner: Tensor) -> Tensor:
    """Coefficients (C, k) of values that vary as much as their partners do on average.

    Args:
        inner: moments of the partners of each column, (C, k, k).
    """
    if solved.shape[1] == 1:
        return torch.ones_like(solved)
    power = torch.einsum("ci,cij,cj->c", solved, inner, solved)
    usual = inner.diagonal(dim1=1, dim2=2).mean(dim=1)
    return torch.where(power > 0, (usual / power).sqrt(), 0.0)[:, None] * solved


def products_of(
    moments: Moments, choice: Choice, place: Tensor, coefficients: Tensor, output: Tensor
) -> Products:
    """Products of [h_K, v] with the dense output W h.

    Args:
        moments: moments of z = [h, p]; ``place``: (C, k), indices of the columns' partners in z.
        output: W, (H, N) float64.
    """
    n = choice.n_neurons
    taken = torch.cat([torch.arange(n), n + torch.arange(choice.n_columns)])
    second, mean = moments.second, moments.mean
    # a is nonzero only for k rows of z.
    rows = (coefficients[:, :, None] * second[place]).sum(dim=1)  # (C, N + P): E[v zᵀ]
    corner = (coefficients[:, :, None] * rows[:, place].permute(1, 2, 0)).sum(dim=1)  # (C, C)
    whole = torch.empty(len(taken), len(taken), dtype=torch.float64)
    whole[:n, :n] = second[:n, :n]
    whole[n:, :n], whole[:n, n:] = rows[:, :n], rows[:, :n].T
    whole[n:, n:] = (corner + corner.T) / 2
    means = torch.cat([mean[:n], (coefficients * mean[place]).sum(dim=1)])
    padded = torch.cat([output, output.new_zeros(len(output), choice.n_columns)], dim=1)
    kept = torch.cat([choice.kept, n + torch.arange(choice.n_columns)])
    return Products.of_moments(Moments(moments.n_tokens, means, whole), kept, padded)


def early_written(
    layers: Sequence[FittedLayer | None], layer: int, n_neurons: int
) -> Tensor | None:
    """The columns that one layer's neurons write for neurons of later layers: (H, N) float64 to add
    to its output projection; None without such columns.

    Args:
        n_neurons: N, the number of neurons of this layer.
    """
    found = None
    for later in layers[layer + 1 :]:
        if later is None or not bool((later.choice.partner_layer == layer).any()):
            continue
        choice, columns = later.choice, later.columns.double()
        if found is None:
            found = torch.zeros(len(columns), n_neurons, dtype=torch.float64)
        column, which = (choice.partner_layer == layer).nonzero(as_tuple=True)
        weights = columns[:, column] * later.values.coefficients[column, which]
        found.index_add_(1, choice.partner_neuron[column, which], weights)
    return found
