"""What a least-squares fit needs to know of some tokens, and the fit itself."""

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
    """What a least-squares fit of targets t (H,) from neurons k (K,) needs to know of some tokens.

    Attributes:
        n_tokens: how many.
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
        """From rows (n, K) and (n, H): products of some thousands in float32, sums in float64.

        Rows in float64 are multiplied in it.
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
        """Over no token."""
        k, t = (torch.zeros(n, dtype=torch.float64, device=device) for n in (n_neurons, n_targets))
        return cls(0, torch.outer(k, k), torch.outer(k, t), k, t, 0.0)

    @classmethod
    def of_moments(cls, moments: Moments, kept: Tensor, output: Tensor) -> Products:
        """For targets W h from the kept (K,) of the neurons h themselves; W (H, N) float64."""
        # What the targets have in common with all neurons: their power comes of it too.
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
        """Over the tokens of both."""
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
        """The same for k − p and t − q."""
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
        """The same for what W k, W (H, K), leaves of the targets: t − W k."""
        told = self.inner @ output.T
        return replace(
            self,
            cross=self.cross - told,
            target_mean=self.target_mean - output @ self.neuron_mean,
            power=self.power + float((output.T * (told - 2 * self.cross)).sum()),
        )

    def on_cpu(self) -> Products:
        """The same, on the CPU."""
        names = ("inner", "cross", "neuron_mean", "target_mean")
        return replace(self, **{name: getattr(self, name).cpu() for name in names})

    def loss(self, output: Tensor) -> float:
        """E‖t − W k‖², W (H, K)."""
        rows = output.T
        total = self.power - 2 * float((rows * self.cross).sum())
        # Inner products are symmetric: those left of the diagonal's blocks count twice.
        for start in range(0, len(rows), _BLOCK_ROWS):
            own = slice(start, start + _BLOCK_ROWS)
            told = self.inner[own, own] @ rows[own]
            told.addmm_(self.inner[own, :start], rows[:start], alpha=2)
            total += float((told * rows[own]).sum())
        return total


def fit_output(
    fit: Products, held_out: Products, start: Tensor, *, centred: bool, on_all: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The output projection that gives the targets best, and its bias where ``centred``.

    Ridge regression towards the weights as they are: W = W₀ + (B − W₀ A)(A + λ m I)⁻¹, with
    A = E[k kᵀ], B = E[t kᵀ] and m the usual one on A's diagonal. λ is the one of nine powers of
    ten that does best on held-out tokens, or the start itself where none does better; the fit is
    then made from all tokens. Some four of the nine are tried, as the held-out loss falls to
    one least value and rises behind it.

    Args:
        fit, held_out: products over disjoint tokens.
        start: W₀, (H, K) float64.
        centred: take moments about the mean, and give the bias b = E[t] − W E[k].
        on_all: make the fit from all tokens; else from ``fit`` alone, so that ``held_out`` can
            go on to judge it.

    Returns:
        (H, K) float64, and (H,) float64 or None.

    Each damping costs a Cholesky factor, K³ / 6 multiplications and additions, and 1.5 K² H. Beside
    what it is given it holds three (K, K) matrices, two more where ``centred``, and some (K, H).
    """
    # What the start leaves of the targets: a step from it is to tell that.
    parts = near, far = fit.beyond(start), held_out.beyond(start)
    if held_out.n_tokens == 0:
        # Nothing to choose by: a moderate one.
        best: float | None = _USUAL_DAMPING
    else:
        if centred:
            points = (near.neuron_mean, near.target_mean)
            near, far = near.about(*points), far.about(*points)
        best = _chosen(near, far)
    # Large, and needed no more.
    del near, far
    whole = parts[0].joined(parts[1]) if on_all else parts[0]
    means = whole.neuron_mean, whole.target_mean
    output = start
    if best is not None:
        whole = whole.about(*means) if centred else whole
        step = _ridge(whole, best)
        output = start if step is None else start + step
    # The start's own share is in the targets' mean already.
    bias = means[1] - (output - start) @ means[0] if centred else None
    return output, bias


def _chosen(near: Products, far: Products) -> float | None:
    """The damping of a fit to ``near`` that loses least on ``far``; None where no step does.

    From the middle of the nine towards the side where the loss falls, for as long as it falls:
    where the loss has one valley, that is the least of all nine.
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
    """B (A + λ m I)⁻¹, (H, K); None where too little damping leaves it singular."""
    regular = products.inner.clone()
    regular.diagonal().add_(damping * usual_moment(products.inner))
    factor, info = torch.linalg.cholesky_ex(regular)
    if int(info) == 0:
        # The solution takes a copy of the factor.
        del regular
        step = torch.cholesky_solve(products.cross, factor)
    else:
        # Rounding left it indefinite.
        step, info = torch.linalg.solve_ex(regular, products.cross)
    return None if int(info) or not bool(step.isfinite().all()) else step.T
