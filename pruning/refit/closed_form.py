"""Refits without training: none, the output bias, or the output projection."""

from __future__ import annotations

from torch import Tensor

from pruning.refit.products import fit_output
from pruning.refit.record import Fit, Refit


def _bias(given: Fit) -> tuple[Tensor, Tensor]:
    whole = given.fit.joined(given.held_out)
    return given.start, whole.target_mean - given.start @ whole.neuron_mean


def _least_squares(given: Fit) -> tuple[Tensor, Tensor | None]:
    return fit_output(given.fit, given.held_out, given.start, centred=given.centred)


NONE = Refit(name="none", help="nothing", dash="dot")
BIAS = Refit(
    name="bias",
    help="the output bias absorbs the removed neurons' mean, if there is a bias",
    output=_bias,
    needs_bias=True,
    dash="dashdot",
)
LEAST_SQUARES = Refit(
    name="least-squares",
    help="the output projection is fitted again",
    output=_least_squares,
    needs_regular_moments=True,
    dash="dash",
)
