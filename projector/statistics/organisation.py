"""How organised a map is: how few directions its neurons vary along, and how many have a partner.

Every figure is given with its value for independent neurons at the same number of tokens. Heavy
packages are imported only to measure a map, so that saved figures can be read without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from projector.sites import MapKey, site_words
from projector.storage.entries import Entry, Wrong

if TYPE_CHECKING:
    from torch import Tensor

    from projector.statistics.correlations import Correlation, Target

# From this |ρ| on, two neurons are partners.
PARTNER_RHO = 0.3
# Why a map has no figures of it where its statistics are there.
NOTHING_DEFINED = "no neuron has correlations, or there are too few tokens"
# Below so many tokens the law of chance correlations is not the one used here.
_LEAST_TOKENS = 4
# Mean of the Tracy–Widom law of real matrices.
_TRACY_WIDOM_MEAN = -1.2065335745820
# Of the effective dimension that independent neurons have, above which a map is not called
# organised.
_HARDLY_ORGANISED = 0.9
_MOST_STEPS, _TOLERANCE = 200, 1e-7
_TILE = 512


@dataclass(frozen=True)
class Organisation:
    """How organised n defined neurons are, compared with independent neurons.

    Attributes:
        effective_dimension: n²/Σρᵢⱼ², the participation ratio of ρ's eigenvalues: n if no two
            neurons are correlated, 1 if all are perfectly correlated.
        leading_share: largest eigenvalue of ρ, as a share of their sum n.
        partnered_share: share of neurons with |ρ| ≥ 0.3 to at least one other neuron.
        effective_dimension_by_chance, leading_share_by_chance, partnered_share_by_chance: the same
            for independent neurons.
        n_neurons: n.
    """

    effective_dimension: float
    effective_dimension_by_chance: float
    leading_share: float
    leading_share_by_chance: float
    partnered_share: float
    partnered_share_by_chance: float
    n_neurons: int

    @classmethod
    def from_entry(cls, entry: Entry) -> Organisation:
        """Read from JSON; raises ``Wrong`` if a figure is missing or not a number."""
        numbers = {}
        for each in fields(cls):
            if each.name == "n_neurons":
                continue
            number = entry.maybe_number(each.name)
            if number is None:
                raise Wrong(f"{entry.name}.{each.name} is missing")
            numbers[each.name] = number
        return cls(**numbers, n_neurons=entry.count("n_neurons"))


def measure_organisation(rho: Tensor | Correlation, n_tokens: int) -> Organisation | None:
    """Measure how organised the defined neurons of a map are.

    This takes a few passes over ρ, and no eigendecomposition.

    Args:
        rho: (N, N) with NaN for undefined neurons; or correlations in any other form.
        n_tokens: T, the number of tokens in ρ; for a mean over sequences, see
            :func:`independent_tokens`.

    Returns:
        None if no neuron is defined, or T is too small for a chance level.
    """
    from projector.statistics.correlations import as_correlation
    from projector.statistics.precision import full_float32

    correlation = as_correlation(rho)
    n = int(correlation.is_defined.sum())
    if n == 0 or n_tokens < _LEAST_TOKENS:
        return None
    with full_float32():
        squares, n_partnered = _squares_and_partners(correlation.target(), n)
        leading = _leading_eigenvalue(correlation, n)
    return Organisation(
        effective_dimension=n * n / squares,
        effective_dimension_by_chance=n / (1 + (n - 1) / (n_tokens - 1)),
        leading_share=leading / n,
        leading_share_by_chance=leading_share_by_chance(n, n_tokens),
        partnered_share=n_partnered / n,
        partnered_share_by_chance=partnered_share_by_chance(n, n_tokens),
        n_neurons=n,
    )


def independent_tokens(n_tokens: int, n_sequences: int | None) -> int:
    """The number of independent tokens, T, for :func:`measure_organisation`.

    A mean of S sequences' own correlations, over T/S tokens each, has the same sampling variance as
    one correlation over T − S + 1 tokens, because each sequence loses a degree of freedom to its
    mean.

    Args:
        n_sequences: S if ρ is such a mean; None if it is over all tokens.
    """
    return n_tokens if n_sequences is None else max(0, n_tokens - n_sequences + 1)


def leading_share_by_chance(n: int, n_tokens: int) -> float:
    """Expected largest eigenvalue of ρ for independent neurons, divided by n.

    It is the Marchenko–Pastur edge (1 + √(n/T))² with a finite-size correction: Johnstone
    (2001), "On the distribution of the largest eigenvalue in principal components analysis".
    """
    if n == 1:
        return 1.0
    a, b = math.sqrt(n_tokens - 1), math.sqrt(n)
    spread = (a + b) * (1 / a + 1 / b) ** (1 / 3)
    greatest = ((a + b) ** 2 + _TRACY_WIDOM_MEAN * spread) / (n_tokens - 1)
    return min(max(greatest, 1.0), n) / n


def partnered_share_by_chance(n: int, n_tokens: int) -> float:
    """Probability that an independent neuron has |ρ| ≥ 0.3 to at least one of the n − 1 other
    neurons: artanh ρ is normal with variance 1/(T − 3) (Fisher 1915).
    """
    tail = math.erfc(math.atanh(PARTNER_RHO) * math.sqrt((n_tokens - 3) / 2))
    return 1.0 if tail >= 1 and n > 1 else -math.expm1((n - 1) * math.log1p(-tail))


def most_organised(organisations: Mapping[MapKey, Organisation | None]) -> str | None:
    """A sentence that names the most organised map; None if no map was measured.

    Maps of different widths are compared by the ratio of their effective dimension to that of
    independent neurons.
    """
    known = {key: each for key, each in organisations.items() if each is not None}
    if not known:
        return None

    def ratio(each: Organisation) -> float:
        return each.effective_dimension / each.effective_dimension_by_chance

    (layer, site), found = min(known.items(), key=lambda pair: ratio(pair[1]))
    where = f"The {site_words(site)} of layer {layer}"
    if site_words(site).endswith("neurons"):
        where = f"Layer {layer}'s {site_words(site)}"
    if ratio(found) > _HARDLY_ORGANISED:
        return (
            "No map is more organised than independent neurons would be: the most organised "
            f"one, layer {layer} {site_words(site)}, has an effective dimension of "
            f"{found.effective_dimension:,.0f} (chance {found.effective_dimension_by_chance:,.0f})."
        )
    is_plural = where.endswith("s")
    verb, subject = (
        ("are", "they vary") if is_plural else ("is", f"its {found.n_neurons:,} neurons vary")
    )
    n_axes = f"{found.effective_dimension:,.0f}"
    return (
        f"{where} {verb} the most organised: {subject} along about {n_axes} "
        f"direction{'' if n_axes == '1' else 's'} (independent neurons along "
        f"{found.effective_dimension_by_chance:,.0f}), and one axis carries "
        f"{_percent(found.leading_share)} of the variance "
        f"(chance {_percent(found.leading_share_by_chance)})."
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"


def _squares_and_partners(target: Target, n: int) -> tuple[float, int]:
    """Σρ² over all pairs, and how many neurons have a partner."""
    squares, n_partnered = 0.0, 0
    for first in range(0, n, _TILE):
        rows = slice(first, min(first + _TILE, n))
        # ρ = 1 − δ; the diagonal, which may be rounded, is 1 by definition.
        rho = 1 - target.block(rows, slice(0, n))
        rho.diagonal(first).zero_()
        squares += float(rho.square().sum(dim=1).double().sum())
        n_partnered += int((rho.abs().amax(dim=1) >= PARTNER_RHO).sum())
    return squares + n, n_partnered


def _leading_eigenvalue(correlation: Correlation, n: int) -> float:
    """By Lanczos' method, each direction made orthogonal to all before."""
    import torch

    device = correlation.is_defined.device
    start = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis: list[Tensor] = [(start / start.norm()).to(device)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = correlation.times(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        known = torch.stack(basis)
        for _ in range(2):
            image = image - known.T @ (known @ image)
        beside.append(float(image.norm()))
        tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if len(diagonal) > 1:
            off = torch.diag(torch.tensor(beside[:-1], dtype=torch.float64), 1)
            tridiagonal = tridiagonal + off + off.T
        values, vectors = torch.linalg.eigh(tridiagonal)
        greatest, error = float(values[-1]), beside[-1] * abs(float(vectors[-1, -1]))
        if error <= _TOLERANCE * greatest or len(basis) >= min(n, _MOST_STEPS):
            return min(max(greatest, 0.0), float(n))
        basis.append(image / beside[-1])
