"""Fit the neurons that stay to the dense MLP's outputs, layer after layer.

Layer by layer from the first, the pruned model's MLP is trained on its actual inputs (the pruned
model's stream, with the changes of all earlier layers) to give the dense model's output there. If
the MLP adds directly to the residual stream, the target also makes up for half of the stream's
drift. The output projection is fitted first, in closed form; then gate, up and down together by
Adam. No gradient leaves the layer. Asymmetric calibration after Li et al. 2025 (GPTAQ,
arXiv:2504.02692); layer-wise reconstruction after Hubara et al. 2021 (arXiv:2006.10518).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch
from projector.errors import UserError, named
from projector.model.architecture.records import Architecture, Mlp
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.capture import evaluating, kept_rows
from projector.progress import Progress
from pruning.calibration.mlps import mlps_of
from pruning.calibration.streams import run_block
from pruning.calibration.text import is_held_out
from pruning.methods.plan import NotApplicable
from pruning.refit.products import Products, fit_output
from pruning.refit.record import Refit
from pruning.refit.streams import DenseBlock, DenseStreams
from pruning.surgery import write_weights

_BATCH_TOKENS = 1024
# Adam's step, as a share of the weights' root mean square, because models differ in scale.
_RELATIVE_RATE = 0.015
_DRIFT_SHARE = 0.5
# In units of the median ‖target‖².
_MOST_POWER = 100.0
_CHECKED_ROWS = 8192


def check_reconstructable(architecture: Architecture) -> None:
    """Raise NotApplicable if an MLP can't be trained by itself."""
    for layer, mlp in enumerate(mlps_of(architecture)):
        if mlp.activation is None:
            raise NotApplicable(
                f"layer {layer} can't be reconstructed, or refitted after averaging: its neurons "
                "aren't a known function of its MLP's inputs"
            )


def reconstruct(
    dense: DenseStreams,
    pruned: nn.Module,
    pruned_architecture: Architecture,
    *,
    n_steps: int,
    seed: int,
    progress: Progress,
) -> None:
    """Train every MLP of ``pruned`` in place.

    Args:
        dense: streams of the dense model on the calibration text.
        pruned_architecture: architecture of ``pruned``.

    Costs about two forward passes over the calibration text and n_steps steps per layer, and memory
    for one MLP's inputs and outputs and the residual stream of all its tokens.
    """
    with evaluating(dense.model), evaluating(pruned):
        places = range(len(dense.batches))
        streams = [dense.start(i)[1] for i in places]
        befores: list[Tensor | None] = [None for _ in places]
        for layer, own in enumerate(pruned_architecture.blocks):
            mlp = dense.architecture.blocks[layer].mlp
            assert mlp is not None
            assert own.mlp is not None
            data = _LayerData()
            rests: list[tuple[Tensor, Tensor]] = []
            for i in places:
                call = dense.start(i)[0][layer]
                was = dense.block(i, layer, befores[i])
                befores[i] = was.after
                after, seen = run_block(call, own.module, own.mlp, streams[i])
                # In float32, because differences would lose most digits in half precision.
                rest = after.float() - seen["out"].float() if mlp.adds_to_stream else streams[i]
                rests.append((rest, seen["x"]))
                data.add(dense.batches[i], was, rest, seen, mlp)
            weights = _train(read_weights(own.mlp), mlp, data, n_steps, seed, progress.advance)
            write_weights(pruned, pruned_architecture, layer, weights)
            for i, (rest, x) in enumerate(rests):
                with torch.no_grad():
                    if mlp.adds_to_stream:
                        # The rest of the block is unchanged: only the MLP runs again.
                        given = read_weights(own.mlp).apply(mlp, x)
                        streams[i] = (rest + given.float()).to(given.dtype)
                    else:
                        streams[i] = dense.start(i)[0][layer].again(own.module, rest.clone())


class _LayerData:
    """What one layer is trained with, of all calibration tokens that count.

    Attributes:
        inputs, targets: what the MLP reads and what it should give, (n, H) a batch.
        held_out: which are held out, (n,) bool a batch.
        products: of its neurons as they are and the targets; by whether held out.
    """

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.held_out: list[Tensor] = []
        self.products: dict[bool, Products] = {}

    def add(
        self, batch: Batch, was: DenseBlock, rest: Tensor, seen: dict[str, Tensor], mlp: Mlp
    ) -> None:
        """Add a batch; ``seen`` of the pruned block, see :func:`run_block`."""
        keep = batch.keep
        target = kept_rows(was.out, keep).float()
        if mlp.adds_to_stream:
            # The stream without the MLP's share: the block's input, and attention's output.
            drift = kept_rows(was.after.float() - was.out.float(), keep) - kept_rows(rest, keep)
            target = target + _DRIFT_SHARE * drift
        held_out = is_held_out(batch)[:, None].expand_as(keep)[keep].to(target.device)
        neurons = kept_rows(seen["h"], keep)
        for part in (False, True):
            found = Products.of_rows(neurons[held_out == part], target[held_out == part])
            before = self.products.get(part)
            self.products[part] = found if before is None else before.joined(found)
        self.inputs.append(kept_rows(seen["x"], keep))
        self.targets.append(target)
        self.held_out.append(held_out)


def _train(
    weights: MlpWeights,
    mlp: Mlp,
    data: _LayerData,
    n_steps: int,
    seed: int,
    advance: Callable[[int], None],
) -> MlpWeights:
    """Fit one MLP to its targets; the weights that do best on the held-out tokens."""
    held_out = torch.cat(data.held_out)
    x, target = torch.cat(data.inputs).float(), torch.cat(data.targets)
    kind = weights.output
    weights = weights.to(torch.float32)
    checked = (x[held_out], target[held_out])
    x, target = x[~held_out], target[~held_out]
    # Held-out tokens choose between the candidates, so none of them is fitted to these tokens.
    candidates = [weights, _with_output(weights, data.products[False], data.products[True])]
    limit = _usual_power(target)
    start = min(candidates, key=lambda each: _loss(each, mlp, *checked, limit))
    trained = _descend(start, mlp, x, target, limit, n_steps, seed, advance)
    best = min((start, trained), key=lambda each: _loss(each, mlp, *checked, limit))
    if not math.isfinite(_loss(best, mlp, *checked, limit)):
        raise UserError(
            "an MLP's outputs over the calibration text aren't finite: try "
            f"{named('dtype', 'float32')}"
        )
    return best.to(kind.dtype)


def _usual_power(target: Tensor) -> float:
    """‖t‖² above which a token counts no more.

    Some models write a vector a thousand times the usual length at a text's first token: by its
    square it would count for all others together.
    """
    power = target.pow(2).sum(dim=1)
    return _MOST_POWER * float(power.median()) or math.inf


def _weights_of(target: Tensor, limit: float) -> Tensor:
    """What each token's error counts, (n, 1): 1, or less where the target is out of all measure."""
    power = target.pow(2).sum(dim=1, keepdim=True)
    return (limit / power.clamp_min(torch.finfo(power.dtype).tiny)).clamp_max(1)


def _with_output(weights: MlpWeights, fit: Products, held_out: Products) -> MlpWeights:
    """The output projection fitted in closed form to what the layer really reads."""
    output, bias = fit_output(
        fit,
        held_out,
        weights.output.to(fit.inner.device).double(),
        centred=weights.output_bias is not None,
        on_all=False,
    )
    return replace(
        weights,
        output=output.to(weights.output),
        output_bias=None if bias is None else bias.to(weights.output),
    )


@torch.no_grad()
def _loss(weights: MlpWeights, mlp: Mlp, x: Tensor, target: Tensor, limit: float) -> float:
    total = 0.0
    for rows, wanted in zip(x.split(_CHECKED_ROWS), target.split(_CHECKED_ROWS), strict=True):
        error = (weights.apply(mlp, rows) - wanted).pow(2) * _weights_of(wanted, limit)
        total += float(error.sum(dtype=torch.float32))
    return total / max(1, target.numel())


def _descend(
    start: MlpWeights,
    mlp: Mlp,
    x: Tensor,
    target: Tensor,
    limit: float,
    n_steps: int,
    seed: int,
    advance: Callable[[int], None],
) -> MlpWeights:
    """Adam on all weights of the MLP, its step falling on a cosine to zero."""

    def parameter(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().clone().requires_grad_(True)

    new = MlpWeights(
        tuple(w.detach().clone().requires_grad_(True) for w in start.inputs),
        tuple(parameter(bias) for bias in start.input_biases),
        start.output.detach().clone().requires_grad_(True),
        parameter(start.output_bias),
    )
    groups = []
    for matrix, bias in (
        *zip(new.inputs, new.input_biases, strict=True),
        (new.output, new.output_bias),
    ):
        # A bias starts at zero, so its matrix gives the scale.
        rate = _RELATIVE_RATE * float(matrix.detach().pow(2).mean().sqrt())
        groups.append({"params": [matrix] if bias is None else [matrix, bias], "lr": rate})
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    # Products in bf16, sums and weights in float32: as good as float32 in our trials, and twice as
    # fast where the machine has it.
    lower = products_in(x.device) == "bfloat16"
    with torch.enable_grad():
        for step in range(n_steps):
            if len(order) < min(_BATCH_TOKENS, len(x)):
                order = torch.cat([order, torch.randperm(len(x), generator=generator)])
            rows, order = order[:_BATCH_TOKENS].to(x.device), order[_BATCH_TOKENS:]
            with torch.autocast(x.device.type, torch.bfloat16, enabled=lower):
                given = new.apply(mlp, x[rows])
            wanted = target[rows]
            loss = ((given.float() - wanted).pow(2) * _weights_of(wanted, limit)).mean()
            loss.backward()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            advance(1)
    return MlpWeights(
        tuple(w.detach() for w in new.inputs),
        tuple(None if b is None else b.detach() for b in new.input_biases),
        new.output.detach(),
        None if new.output_bias is None else new.output_bias.detach(),
    )


def training_bytes(
    n_tokens: int, n_hidden: int, n_kept: int, n_matrices: float, itemsize: int
) -> int:
    """Bytes that :func:`reconstruct` takes besides both models, for an MLP of ``n_kept`` neurons.

    Args:
        n_tokens: tokens of the calibration text.
        n_matrices: K × K float64 matrices that a closed-form fit takes, with its products.
        itemsize: bytes of a number in the streams.
    """
    # Of all tokens: inputs and targets, both again as one and as parts; and five streams.
    tokens = n_tokens * n_hidden * (24 + 5 * itemsize)
    weights = 96 * n_hidden * n_kept + 4 * _BATCH_TOKENS * (8 * n_kept + 4 * n_hidden)
    return tokens + int(8 * n_matrices * n_kept**2) + weights


def products_in(device: torch.device) -> str:
    """``bfloat16`` if the device multiplies in it without converting to float32; else float32."""
    if device.type == "cpu":
        # Missing in the oldest torch version that we support.
        ask = getattr(torch.cpu, "get_capabilities", dict)
        capabilities: dict[str, Any] = ask()
        own = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    else:
        own = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if own else "float32"


RECONSTRUCT = Refit(
    name="reconstruct",
    help="then the whole MLP is trained to give the dense MLP's output; by far the slowest",
    source="Li et al. 2025 (arXiv:2504.02692), Hubara et al. 2021 (arXiv:2006.10518)",
    train=reconstruct,
    needs_regular_moments=True,
    dash="solid",
)
