"""Find each site in a block, with one function per site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projector.model.architecture.blocks import Parts
from projector.model.architecture.mlps import Mixture, find_mixture, find_mlp
from projector.model.architecture.records import Block, Mlp
from projector.model.architecture.trial import Trial, is_norm
from projector.model.capture import Tap
from projector.sites import SITES


@dataclass(frozen=True)
class Anatomy:
    """The parts found in a block: its attention and other matrices, and its MLP or experts.

    Attributes:
        mlp: None if there is none, or a mixture of experts replaces it.
    """

    parts: Parts
    trial: Trial
    mlp: Mlp | None
    mixture: Mixture | None

    @classmethod
    def of(cls, parts: Parts, trial: Trial) -> Anatomy:
        mixture = find_mixture(parts, trial)
        mlp = find_mlp(parts, trial) if mixture is None else None
        return cls(parts, trial, mlp, mixture)


@dataclass(frozen=True)
class Place:
    """Where a site of a block is read, and how many neurons it has."""

    tap: Tap
    width: int


# The place of a site in a block, or why the block has none: it ends "this model has no site: …".
Finder = Callable[[Anatomy], Place | str]


def _resid_pre(found: Anatomy) -> Place | str:
    return Place(Tap(found.parts.module, "input"), found.parts.n_hidden)


def _resid_post(found: Anatomy) -> Place | str:
    return Place(Tap(found.parts.module, "output"), found.parts.n_hidden)


def _resid_mid(found: Anatomy) -> Place | str:
    middle = _find_middle(found.parts, found.trial)
    if middle is None:
        return "its attention and MLP do not write to the residual stream in turn"
    return Place(Tap(middle, "input"), found.parts.n_hidden)


_NO_ATTENTION = "no attention was found in its blocks"
_NO_MLP = "no MLP was found in its blocks"


def _attn_out(found: Anatomy) -> Place | str:
    attention = found.parts.attention_output
    if attention is None:
        return _NO_ATTENTION
    return Place(Tap(attention.module, "output"), attention.n_outputs)


def _attn_z(found: Anatomy) -> Place | str:
    attention = found.parts.attention_output
    if attention is None:
        return _NO_ATTENTION
    return Place(Tap(attention.module, "input"), attention.n_inputs)


def _mlp_post(found: Anatomy) -> Place | str:
    if found.mixture is not None:
        return (
            "a mixture of experts sends each token to some of its "
            f"{found.mixture.n_experts} experts, so no neuron is computed for every token"
        )
    if found.mlp is None:
        return _NO_MLP
    return Place(Tap(found.mlp.output.module, "input"), found.mlp.n_neurons)


def _mlp_out(found: Anatomy) -> Place | str:
    n_hidden = found.parts.n_hidden
    if found.mixture is not None:
        module = found.mixture.module
        if module is None or found.trial.outputs[module].shape[-1] != n_hidden:
            return "no single module gives the output of its mixture of experts"
        return Place(Tap(module, "output"), n_hidden)
    if found.mlp is None:
        return _NO_MLP
    return Place(Tap(found.mlp.output.module, "output"), n_hidden)


def _nowhere(found: Anatomy) -> Place | str:
    return "no way to find it in a model is known"


FINDERS: dict[str, Finder] = {
    "mlp_post": _mlp_post,
    "mlp_out": _mlp_out,
    "attn_out": _attn_out,
    "attn_z": _attn_z,
    "resid_pre": _resid_pre,
    "resid_mid": _resid_mid,
    "resid_post": _resid_post,
}


def describe_block(parts: Parts, trial: Trial) -> Block:
    """A block with every site of :data:`projector.sites.SITES`, each found or missing."""
    found = Anatomy.of(parts, trial)
    taps: dict[str, Tap] = {}
    widths: dict[str, int] = {}
    missing: dict[str, str] = {}
    for site in SITES:
        place = FINDERS.get(site, _nowhere)(found)
        if isinstance(place, str):
            missing[site] = place
        else:
            taps[site], widths[site] = place.tap, place.width
    return Block(parts.name, parts.module, taps, widths, missing, found.mlp, parts.attention_output)


def _find_middle(parts: Parts, trial: Trial) -> nn.Module | None:
    """The module that reads the stream between attention and MLP, before any norm of it.

    What attention adds to the stream is what its output projection gives, or a norm of that, or a
    multiple of either. A norm need not have a weight, so any module may be the one that reads the
    stream.
    """
    if parts.attention_output is None:
        return None
    attention = parts.attention_output.module
    start = parts.stream.detach().float().reshape(-1, parts.stream.shape[-1])
    # What the model's own type rounds off a sum: of a wide stream, more than attention adds to it.
    rounding = torch.finfo(parts.stream.dtype).eps
    within = set(parts.module.modules())
    order = [m for m in trial.inputs if m in within]
    later = order[order.index(attention) + 1 :]
    added = [trial.outputs[attention]]
    for module in later:
        tensor = trial.inputs[module].detach()
        if tensor.numel() != start.numel() or not tensor.is_floating_point():
            continue
        tensor = tensor.float().reshape(start.shape)
        for term in added:
            term = term.detach().float().reshape(start.shape)
            # The stream itself, read beside attention, may be within the tolerance.
            if not tensor.equal(start) and any(
                _is_sum(tensor, start, part, rounding)
                for part in (term, _nearest_multiple(term, tensor - start))
            ):
                return module
        if is_norm(module) and trial.inputs[module] is trial.outputs[attention]:
            added.append(trial.outputs[module])
    return None


def _is_sum(tensor: Tensor, start: Tensor, term: Tensor, rounding: float) -> bool:
    expected = start + term
    tolerance = 1e-2 * term.abs().max() + 1e-2 * term.abs() + rounding * expected.abs()
    return bool(((tensor - expected).abs() <= tolerance).all())


def _nearest_multiple(term: Tensor, added: Tensor) -> Tensor:
    """The multiple of what attention gives that is nearest to what was added."""
    size = float(term.flatten() @ term.flatten())
    factor = float(term.flatten() @ added.flatten()) / size if size else 0.0
    # Next to nothing is what rounding leaves where nothing was added.
    return factor * term if abs(factor) > 1e-3 else term
