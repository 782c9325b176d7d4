"""Change the weights that stay so that they make up for those that went.

``none`` leaves them; ``bias`` moves the output bias by what the removed neurons gave on average;
``least-squares`` fits the output projection anew; ``reconstruct`` goes on from there and fits what
makes the neurons as well (:mod:`pruning.refit.reconstruction`). Where a bias can be had, moments
are taken about the mean and the bias absorbs it; else about zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.architecture.widths import can_have_bias
from projector.model.capture import Tap, kept_rows
from projector.progress import Progress, Silent
from pruning.calibration import (
    Calibration,
    LayerMoments,
    Moments,
    check_enough,
    is_held_out,
    mlps_of,
    run_batch,
)
from pruning.methods.elimination import usual_moment
from pruning.methods.plan import LayerPlan, NotApplicable, PruningPlan
from pruning.surgery import apply_plan, write_weights

if TYPE_CHECKING:
    from pruning.refit.reconstruction import DenseStreams

REFITS = ("none", "bias", "least-squares", "reconstruct")
_USUAL_DAMPING = 1e-4
_DAMPINGS = tuple(10.0**k for k in range(-7, 2))
_CHUNK_ROWS = 4096


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
        cross = moments.second[kept] @ output.T
        power = float(((output @ moments.second) * output).sum())
        return cls(
            moments.n_tokens,
            moments.second[kept][:, kept],
            cross,
            moments.mean[kept],
            output @ moments.mean,
            power,
        )

    def joined(self, other: Products) -> Products:
        """Over the tokens of both."""
        n_tokens = self.n_tokens + other.n_tokens
        a, b = (each.n_tokens / max(1, n_tokens) for each in (self, other))
        return Products(
            n_tokens,
            a * self.inner + b * other.inner,
            a * self.cross + b * other.cross,
            a * self.neuron_mean + b * other.neuron_mean,
            a * self.target_mean + b * other.target_mean,
            a * self.power + b * other.power,
        )

    def about(self, neuron_point: Tensor, target_point: Tensor) -> Products:
        """The same for k − p and t − q."""
        k, t, p, q = self.neuron_mean, self.target_mean, neuron_point, target_point
        cross_inner = torch.outer(k, p)
        return replace(
            self,
            inner=self.inner - cross_inner - cross_inner.T + torch.outer(p, p),
            cross=self.cross - torch.outer(k, q) - torch.outer(p, t) + torch.outer(p, q),
            neuron_mean=k - p,
            target_mean=t - q,
            power=self.power - 2 * float(t @ q) + float(q @ q),
        )

    def on_cpu(self) -> Products:
        """The same, on the CPU."""
        names = ("inner", "cross", "neuron_mean", "target_mean")
        return replace(self, **{name: getattr(self, name).cpu() for name in names})

    def loss(self, output: Tensor) -> float:
        """E‖t − W k‖², W (H, K)."""
        return (
            self.power
            - 2 * float((output.T * self.cross).sum())
            + float(((output @ self.inner) * output).sum())
        )


def fit_output(
    fit: Products, held_out: Products, start: Tensor, *, centred: bool, on_all: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The output projection that gives the targets best, and its bias where ``centred``.

    Ridge regression towards the weights as they are: W = W₀ + (B − W₀ A)(A + λ m I)⁻¹, with
    A = E[k kᵀ], B = E[t kᵀ] and m the usual one on A's diagonal. λ is the one of nine powers of
    ten that does best on held-out tokens, or the start itself where none does better; the fit is
    then made from all tokens.

    Args:
        fit, held_out: products over disjoint tokens.
        start: W₀, (H, K) float64.
        centred: take moments about the mean, and give the bias b = E[t] − W E[k].
        on_all: make the fit from all tokens; else from ``fit`` alone, so that ``held_out`` can
            go on to judge it.

    Returns:
        (H, K) float64, and (H,) float64 or None.
    """
    whole = fit.joined(held_out) if on_all else fit
    points = (fit.neuron_mean, fit.target_mean)
    near, far = (fit.about(*points), held_out.about(*points)) if centred else (fit, held_out)
    best: float | None = None
    candidates: tuple[float, ...] = _DAMPINGS
    if held_out.n_tokens == 0:
        # Nothing to choose by: a moderate one.
        best, candidates = _USUAL_DAMPING, ()
    best_loss = far.loss(start)
    for damping in candidates:
        candidate = _ridge(near, start, damping)
        loss = far.loss(candidate)
        if loss < best_loss:
            best, best_loss = damping, loss
    points = (whole.neuron_mean, whole.target_mean)
    final = whole.about(*points) if centred else whole
    output = start if best is None else _ridge(final, start, best)
    bias = whole.target_mean - output @ whole.neuron_mean if centred else None
    return output, bias


def _ridge(products: Products, start: Tensor, damping: float) -> Tensor:
    inner = products.inner
    level = damping * usual_moment(inner)
    regular = inner + level * torch.eye(len(inner), dtype=inner.dtype, device=inner.device)
    missing = products.cross - inner @ start.T
    step, info = torch.linalg.solve_ex(regular, missing)
    # Singular for want of damping: the next level is tried.
    if int(info) or not bool(step.isfinite().all()):
        return start
    return start + step.T


def refit(
    model: nn.Module,
    architecture: Architecture,
    plan: PruningPlan,
    kind: str,
    calibration: Calibration,
    *,
    n_steps: int = 200,
    seed: int = 0,
    streams: DenseStreams | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A pruned copy of ``model``, refitted.

    Args:
        architecture: of the dense model.
        kind: one of :data:`REFITS`.
        n_steps: of ``reconstruct``, in each layer.
        seed: of the batches that ``reconstruct`` draws.
        streams: of this model and calibration, where several pruned models share them.

    Raises:
        NotApplicable: if the architecture has no place for such a refit.
        UserError: if the calibration text is too short for it.
    """
    from pruning.refit.reconstruction import DenseStreams, check_reconstructable, reconstruct

    progress = progress or Silent()
    check_refit(kind)
    mlps = mlps_of(architecture)
    with_bias = kind != "none" and can_have_bias(model, architecture)
    if kind == "bias" and not with_bias:
        raise NotApplicable(no_bias(model))
    averaged = any(layer.groups for layer in plan.layers)
    if kind == "reconstruct" or (averaged and kind != "none"):
        check_reconstructable(architecture)
    if kind == "none" or plan.changes_nothing:
        return apply_plan(model, plan, architecture=architecture)
    if kind in ("least-squares", "reconstruct"):
        check_enough(calibration, plan.widths)
    pruned = apply_plan(model, plan, architecture=architecture, with_bias=with_bias)
    inner = find_architecture(pruned)
    if kind == "reconstruct":
        reconstruct(
            streams or DenseStreams(model, architecture, calibration),
            pruned,
            inner,
            n_steps=n_steps,
            seed=seed,
            progress=progress,
        )
        return pruned
    products = _run_products(model, architecture, inner, calibration) if averaged else None
    for layer, mlp in enumerate(mlps_of(inner)):
        if len(plan.layers[layer].kept) == plan.layers[layer].n_neurons:
            continue
        dense, weights = read_weights(mlps[layer]), read_weights(mlp)
        fit, held_out = (
            products[layer]
            if products is not None
            else _kept_products(calibration.layers[layer], plan.layers[layer], dense)
        )
        write_weights(
            pruned, inner, layer, _closed_form(kind, dense, weights, fit, held_out, with_bias)
        )
    return pruned


def no_bias(model: nn.Module) -> str:
    """What is said where the refit ``bias`` can't be."""
    return (
        f"{type(model).__name__} has no place for a bias in its MLPs' outputs: choose --refit "
        "least-squares"
    )


def check_refit(kind: str) -> None:
    """Raise a UserError if there is no such refit."""
    if kind not in REFITS:
        raise UserError(f"unknown refit '{kind}': choose from {', '.join(REFITS)}")


def _closed_form(
    kind: str,
    dense: MlpWeights,
    weights: MlpWeights,
    fit: Products,
    held_out: Products,
    with_bias: bool,
) -> MlpWeights:
    """``bias`` or ``least-squares``: targets are W h, to which the dense bias is added."""
    start = weights.output.cpu().double()
    if kind == "bias":
        whole = fit.joined(held_out)
        output, bias = start, whole.target_mean - start @ whole.neuron_mean
    else:
        output, shift = fit_output(fit, held_out, start, centred=with_bias)
        bias = torch.zeros(len(output), dtype=output.dtype) if shift is None else shift
    kind_of = weights.output
    if dense.output_bias is not None:
        bias = bias + dense.output_bias.cpu().double()
    return replace(
        weights,
        output=output.to(kind_of),
        output_bias=None if weights.output_bias is None else bias.to(kind_of),
    )


def _kept_products(
    moments: LayerMoments, layer: LayerPlan, dense: MlpWeights
) -> tuple[Products, Products]:
    output = dense.output.cpu().double()
    kept = layer.kept_index
    return (
        Products.of_moments(moments.fit, kept, output),
        Products.of_moments(moments.held_out, kept, output),
    )


def _run_products(
    model: nn.Module, architecture: Architecture, pruned: Architecture, calibration: Calibration
) -> list[tuple[Products, Products]]:
    """The products of neurons that the dense model does not have: one more pass over the text."""
    mlps, new = mlps_of(architecture), [read_weights(mlp) for mlp in mlps_of(pruned)]
    totals: dict[tuple[int, bool], Products] = {}
    taps: dict[tuple[int, str], Tap] = {}
    for layer, mlp in enumerate(mlps):
        taps[layer, "x"] = Tap(mlp.inputs[0].module, "input")
        taps[layer, "h"] = Tap(mlp.output.module, "input")
    trunk = getattr(model, "base_model", model)
    for batch in calibration.batches():
        held_out = is_held_out(batch)
        keeps = {part: batch.keep & (held_out == part)[:, None] for part in (False, True)}
        read: dict[int, Tensor] = {}

        def count(
            key: tuple[int, str],
            tensor: Tensor,
            keeps: Mapping[bool, Tensor] = keeps,
            read: dict[int, Tensor] = read,
        ) -> None:
            layer, what = key
            if what == "x":
                # Copied: the model may go on to change it in place.
                read[layer] = tensor.clone()
                return
            neurons = new[layer].neurons(mlps[layer], read.pop(layer))
            targets = tensor.float() @ read_weights(mlps[layer]).output.float().T
            for part, keep in keeps.items():
                found = Products.of_rows(kept_rows(neurons, keep), kept_rows(targets, keep))
                before = totals.get((layer, part))
                totals[layer, part] = found if before is None else before.joined(found)

        run_batch(trunk, batch, count, taps)
    return [
        (totals[layer, False].on_cpu(), totals[layer, True].on_cpu()) for layer in range(len(mlps))
    ]
