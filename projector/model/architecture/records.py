"""The parts of a transformer: its blocks, their matrices and MLP, and where each site is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from projector.errors import UserError, named
from projector.model.capture import Tap
from projector.sites import SITES, check_sites, default_sites


@dataclass(frozen=True)
class Matrix:
    """A module that multiplies by a weight matrix, such as ``nn.Linear`` or GPT-2's ``Conv1D``.

    ``input_axis`` is the axis of ``module.weight`` that runs over inputs: 1 for ``nn.Linear``,
    whose weight is (out, in), and 0 for ``Conv1D``, whose weight is (in, out).
    """

    name: str
    module: nn.Module
    n_inputs: int
    n_outputs: int
    input_axis: int


@dataclass(frozen=True)
class Mlp:
    """The matrices around a block's MLP neurons.

    ``inputs`` write the neurons: one matrix, two for a gated MLP, or a single one of 2·n_neurons
    outputs where gate and up are ``fused``. ``output`` reads them.

    ``activation`` is the function applied to a neuron's input, and ``gate`` is the index of the
    input (or of the half of a fused one) that it is applied to. ``activation`` is None if no
    function of the inputs alone was found to give the neurons. ``adds_to_stream`` is whether the
    result of ``output`` is added to the residual stream unchanged, with no norm or factor in
    between.
    """

    inputs: tuple[Matrix, ...]
    output: Matrix
    n_neurons: int
    fused: bool
    activation: Callable[[Tensor], Tensor] | None = None
    gate: int = 0
    adds_to_stream: bool = False

    def neurons(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute the neurons' activations, (…, N), from the input matrices' outputs, (…, N) each.

        Pass gate and up separately even if the model stores them fused.

        Raises:
            ValueError: if the MLP's activation is not known.
        """
        if self.activation is None:
            raise ValueError("this MLP's neurons are not a known function of its inputs")
        gated = self.activation(inputs[self.gate])
        return gated if len(inputs) == 1 else gated * inputs[1 - self.gate]


@dataclass(frozen=True)
class Block:
    """One layer: where each site is read, how wide it is, and why a site is missing."""

    name: str
    module: nn.Module
    taps: dict[str, Tap]
    widths: dict[str, int]
    missing: dict[str, str]
    mlp: Mlp | None
    attention_output: Matrix | None


@dataclass(frozen=True)
class Architecture:
    """The blocks of a model, in order; whether it is causal; the width of its residual stream."""

    blocks: tuple[Block, ...]
    is_causal: bool
    n_hidden: int

    def choose_sites(self, sites: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
        """The sites to read, and the reason for each site that is missing in some or all layers.

        Raises:
            SettingError: if a named site doesn't exist in any model.
            UserError: if no layer of this model has the site, or none of the requested sites
                exists.
        """
        check_sites(sites)
        chosen: list[str] = []
        left_out: dict[str, str] = {}
        for site in default_sites() if sites is None else dict.fromkeys(sites):
            lacking = [i for i, block in enumerate(self.blocks) if site not in block.taps]
            if len(lacking) < len(self.blocks):
                chosen.append(site)
                if lacking:
                    where = ", ".join(str(i) for i in lacking)
                    left_out[site] = f"in layers {where}: {self.blocks[lacking[0]].missing[site]}"
                continue
            reason = self.blocks[0].missing[site]
            if sites is not None:
                raise UserError(
                    f"this model has no site '{site}': {reason}", setting="sites", value=site
                )
            left_out[site] = reason
        if not chosen:
            raise UserError(
                f"none of {named('sites')} exists in this model: choose from {', '.join(SITES)}",
                setting="sites",
            )
        return chosen, left_out

    def choose_layers(self, layers: Iterable[int] | None) -> list[int]:
        """The layers to read, in order.

        Raises:
            UserError: if the model lacks a requested layer, or none is requested.
        """
        n_layers = len(self.blocks)
        chosen = sorted(set(range(n_layers) if layers is None else layers))
        for layer in chosen:
            if not 0 <= layer < n_layers:
                raise UserError(
                    f"this model has no layer {layer}: it has layers 0 to {n_layers - 1}",
                    setting="layers",
                    value=layer,
                )
        if not chosen:
            raise UserError(
                f"{named('layers')} is empty: give layers from 0 to {n_layers - 1}",
                setting="layers",
            )
        return chosen

    def taps(self, sites: Sequence[str], layers: Sequence[int]) -> dict[tuple[int, str], Tap]:
        """The taps of every requested (layer, site) that exists."""
        return {
            (layer, site): self.blocks[layer].taps[site]
            for layer in layers
            for site in sites
            if site in self.blocks[layer].taps
        }
