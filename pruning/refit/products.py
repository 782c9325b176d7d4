"""Least-squares fits, and the products over tokens that they need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning.calibration.moments import Moments
from pruning.methods.elimination import usual_moment

_USUAL_DAMPING = 1e-4
_DAMPINGS = tuple(10.0**k for k in range(-7, 2))
_CHUNK_ROWS = 4096
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class Products:
    """Products over tokens for a least-squares fit of targets t (H,) from neurons k (K,).

    Attributes:
        n_tokens: number of tokens.
        inner: E[k kᵀ], (K, K) float64.
        cross: E[k tᵀ], (K, H) float64.
        neuron_mean: E[k], (K,) float64.
        target_mean: E[t], (H,) float64.
        power: E‖t‖².
    """

    n_tokens: int
    inner: Tensor
    cross: Tensor
    neuron_mean: Tensor
    target_mean: Tensor
    power: float

    @classmethod
    def of_rows(cls, neurons: Tensor, targets: Tensor) -> Products:
        """Products of rows (n, K) and (n, H): a few thousand rows at once in float32, summed in
        float64.

        Rows in float64 are multiplied in float64.
        """
        # MPS has no float64.
        device = torch.device("cpu") if neurons.device.type == "mps" else neurons.device
        total = cls.of_none(neurons.shape[1], targets.shape[1], device)
        for k, t in zip(neurons.split(_CHUNK_ROWS), targets.split(_CHUNK_ROWS), strict=True):
            if k.dtype != torch.float64:
                k, t = k.float(), t.float()
            n = max(1, len(k))
            sums = (k.T @ k, k.T @ t, k.sum(0), t.sum(0), t.pow(2).sum(0))
            inner, cross, of_k, of_t, power = (each.to(device).double() / n for each in sums)
            total = total.joined(cls(len(k), inner, cross, of_k, of_t, float(power.sum())))
        return total

    @classmethod
    def of_none(cls, n_neurons: int, n_targets: int, device: torch.device) -> Products:
        """Products over no tokens."""
        k, t = (torch.zeros(n, dtype=torch.float64, device=device) for n in (n_neurons, n_targets))
        return cls(0, torch.outer(k, k), torch.outer(k, t), k, t, 0.0)

    @classmethod
    def of_moments(cls, moments: Moments, kept: Tensor, output: Tensor) -> Products:
        """Products for targets W h from the kept neurons (K,) of h; W (H, N) float64."""
        # The targets' products with all neurons, which also give their power.
        shared = output @ moments.second
        cross = shared[:, kept].T.contiguous()
        return cls(
            moments.n_tokens,
            moments.second[kept[:, None], kept],
            cross,
            moments.mean[kept],
            output @ moments.mean,
            float(shared.mul_(output).sum()),
        )

    def joined(self, other: Products) -> Products:
        """Products over the tokens of both."""
        n_tokens = self.n_tokens + other.n_tokens
        a, b = (each.n_tokens / max(1, n_tokens) for each in (self, other))

        def mean(of_self: Tensor, of_other: Tensor) -> Tensor:
            return (a * of_self).add_(of_other, alpha=b)

        return Products(
            n_tokens,
            mean(self.inner, other.inner),
            mean(self.cross, other.cross),
            mean(self.neuron_mean, other.neuron_mean),
            mean(self.target_mean, other.target_mean),
            a * self.power + b * other.power,
        )

    def about(self, neuron_point: Tensor, target_point: Tensor) -> Products:
        """Products for k − p and t − q."""
        k, t, p, q = self.neuron_mean, self.target_mean, neuron_point, target_point
        return replace(
            self,
            inner=self.inner.addr(k, p, alpha=-1).addr_(p, k, alpha=-1).addr_(p, p),
            cross=self.cross.addr(k, q, alpha=-1).addr_(p, t, alpha=-1).addr_(p, q),
            neuron_mean=k - p,
            target_mean=t - q,
            power=self.power - 2 * float(t @ q) + float(q @ q),
        )

    def beyond(self, output: Tensor) -> Products:
        """Products for the residuals t − W k; W (H, K)."""
        told = self.inner @ output.T
        return replace(
            self,
            cross=self.cross - told,
            target_mean=self.target_mean - output @ self.neuron_mean,
            power=self.power + float((output.T * (told - 2 * self.cross)).sum()),
        )

    def on_cpu(self) -> Products:
        """A copy on the CPU."""
        names = ("inner", "cross", "neuron_mean", "target_mean")
        return replace(self, **{name: getattr(self, name).cpu() for name in names})

    def loss(self, output: Tensor) -> float:
        """The loss E‖t − W k‖² of an output projection W, (H, K)."""
        rows = output.T
        total = self.power - 2 * float((rows * self.cross).sum())
        # Inner products are symmetric: entries left of the diagonal blocks count twice.
        for start in range(0, len(rows), _BLOCK_ROWS):
            own = slice(start, start + _BLOCK_ROWS)
            told = self.inner[own, own] @ rows[own]
            told.addmm_(self.inner[own, :start], rows[:start], alpha=2)
            total += float((told * rows[own]).sum())
        return total


def fit_output(
    fit: Products, held_out: Products, start: Tensor, *, centred: bool, on_all: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Fit the output projection to the targets, with a bias if ``centred``.

    Ridge regression towards the weights as they are: W = W₀ + (B − W₀ A)(A + λ m I)⁻¹, with A = E[k
    kᵀ], B = E[t kᵀ] and m the median of A's diagonal without dead neurons. λ is one of nine powers
    of ten: the one with the lowest loss on held-out tokens. If no λ is better than the start, the
    weights stay as they are. The fit is then made from all tokens. About four of the nine are
    tried, because the held-out loss falls to one minimum and then rises.

    Args:
        fit, held_out: products over disjoint tokens.
        start: W₀, (H, K) float64.
        centred: take moments about the mean, and give the bias b = E[t] − W E[k].
        on_all: make the fit from all tokens; else from ``fit`` alone, so that ``held_out`` can
            still judge it.

    Returns:
        (H, K) float64, and (H,) float64 or None.

    Each damping costs a Cholesky factor, K³ / 6 multiplications and additions, and 1.5 K² H.
    Besides its arguments it holds three (K, K) matrices, two more if ``centred``, and a few (K, H)
    matrices.
    """
    # Residuals of the start, which a step from it has to fit.
    parts = near, far = fit.beyond(start), held_out.beyond(start)
    if held_out.n_tokens == 0:
        # No held-out tokens to choose by: take a moderate damping.
        best: float | None = _USUAL_DAMPING
    else:
        if centred:
            points = (near.neuron_mean, near.target_mean)
            near, far = near.about(*points), far.about(*points)
        best = _chosen(near, far)
    # Large, and no longer needed.
    del near, far
    whole = parts[0].joined(parts[1]) if on_all else parts[0]
    means = whole.neuron_mean, whole.target_mean
    output = start
    if best is not None:
        whole = whole.about(*means) if centred else whole
        step = _ridge(whole, best)
        output = start if step is None else start + step
    # The targets' mean includes the start's share already.
    bias = means[1] - (output - start) @ means[0] if centred else None
    return output, bias


def _chosen(near: Products, far: Products) -> float | None:
    """The damping of a fit to ``near`` with the lowest loss on ``far``; None if no step lowers it.

    The search starts at the middle of the nine and goes to the side where the loss falls, as long
    as it falls: if the loss has one minimum, this finds it.
    """
    losses: dict[int, float] = {}

    def loss(i: int) -> float:
        if i not in losses:
            step = _ridge(near, _DAMPINGS[i])
            losses[i] = torch.inf if step is None else far.loss(step)
        return losses[i]

    at = len(_DAMPINGS) // 2
    for side in (1, -1):
        while 0 <= at + side < len(_DAMPINGS) and loss(at + side) < loss(at):
            at += side
    return _DAMPINGS[at] if loss(at) < far.power else None


def _ridge(products: Products, damping: float) -> Tensor | None:
    """B (A + λ m I)⁻¹, (H, K); None if too little damping leaves it singular."""
    regular = products.inner.clone()
    regular.diagonal().add_(damping * usual_moment(products.inner))
    factor, info = torch.linalg.cholesky_ex(regular)
    if int(info) == 0:
        # The solver copies the factor.
        del regular
        step = torch.cholesky_solve(products.cross, factor)
    else:
        # Rounding made it indefinite.
        step, info = torch.linalg.solve_ex(regular, products.cross)
    return None if int(info) or not bool(step.isfinite().all()) else step.T
