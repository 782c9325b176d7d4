"""A sample of tokens, kept as it is, where a map has too many neurons for a matrix.

Correlations are then computed from it wherever they are read (:class:`MatrixFree`), and are off by
what the tokens that were not drawn would have told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.kernels import MatrixFree
from projector.statistics import Together

# For each number of a sample, what placing its map takes beside it: standardized rows in half
# precision, of the whole and of both halves, and a copy of a half that these are made from.
STANDARDIZED_BYTES = 5
# Numbers of a sample that are looked at, or standardized, at a time.
_AT_ONCE = 1 << 22


class TokenSample:
    """Activations of evenly drawn tokens of a corpus, and to which of its halves each belongs.

    Args:
        n_neurons: N.
        n_of: tokens of the corpus that count.
        n_drawn: T, how many of them to draw.
        dtype: of the model.
        device: where they are kept.
    """

    def __init__(
        self,
        n_neurons: int,
        n_of: int,
        n_drawn: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_of = n_of
        self._places = evenly_drawn(n_of, n_drawn)
        # A place that is not yet seen holds 0, so that the samples of several processes add up.
        self.rows = torch.zeros(len(self._places), n_neurons, dtype=dtype, device=device)
        self._is_first = torch.zeros(len(self._places), dtype=torch.int32, device=device)

    @property
    def n_neurons(self) -> int:
        return self.rows.shape[1]

    def update(self, rows: Tensor, kept: Tensor, n_before: int, is_first: Tensor) -> None:
        """Keep what was drawn of a batch.

        Args:
            rows: (n_positions, N) activations of a whole batch.
            kept: (n_kept,) which of its positions are tokens that count, ascending.
            n_before: tokens that count in the batches before it.
            is_first: (n_positions,) bool, positions in the first half of the corpus.
        """
        ends = torch.tensor([n_before, n_before + len(kept)])
        begin, end = torch.searchsorted(self._places, ends).tolist()
        if begin == end:
            return
        at = kept[(self._places[begin:end] - n_before).to(kept.device)].to(rows.device)
        self.rows[begin:end] = rows.detach().index_select(0, at).to(self.rows)
        self._is_first[begin:end] = is_first[at.to(is_first.device)].to(self._is_first)

    def reduce(self, together: Together) -> None:
        """Count in what every other process has drawn, each by all."""
        self.rows = together.summed(self.rows)
        self._is_first = together.summed(self._is_first)

    def halves(self) -> tuple[Tensor, Tensor]:
        """Which tokens of the sample are of the first half of the corpus, and which of the second;
        (T,) bool each."""
        is_first = self._is_first > 0
        return is_first, ~is_first

    def undefined(self) -> tuple[Tensor, Tensor]:
        """Where numbers are NaN or infinite.

        Returns:
            (T,) bool, tokens on which every neuron is; and (N,) int64, how often each neuron is on
            the others.
        """
        is_lost, counts = [], torch.zeros(self.n_neurons, dtype=torch.int64)
        for rows in self.rows.split(max(1, _AT_ONCE // max(self.n_neurons, 1))):
            broken = ~rows.isfinite()
            lost = broken.all(dim=1)
            counts += broken[~lost].sum(dim=0).cpu()
            is_lost.append(lost)
        return torch.cat(is_lost), counts

    def state(self) -> dict[str, Tensor]:
        """Everything drawn so far as tensors, exactly."""
        return {"rows": self.rows, "is_first": self._is_first}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.rows = state["rows"].to(self.rows.device)
        self._is_first = state["is_first"].to(self.rows.device)


def standardize(activations: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Activations as :class:`MatrixFree` takes them.

    Args:
        activations: (T, N), any float dtype.
        dtype: of the result; float16 halves its memory, and its rounding moves ρ by less than 1e-3.

    Returns:
        (n_alive, T) with mean 0 and mean square 1 over the tokens, and (N,) bool: which neurons
        these are. Left out is what has no variance, or is NaN or infinite anywhere.
    """
    n_tokens, n_neurons = activations.shape
    is_alive = torch.zeros(n_neurons, dtype=torch.bool, device=activations.device)
    rows = torch.empty(n_neurons, n_tokens, dtype=dtype, device=activations.device)
    n_alive = 0
    # In float64, and some neurons at a time, so that it costs no second copy.
    n_at_once = max(1, _AT_ONCE // max(n_tokens, 1))
    for first in range(0, n_neurons, n_at_once):
        some = activations[:, first : first + n_at_once].T.double()
        some = some - some.mean(dim=1, keepdim=True)
        spread = some.square().mean(dim=1).sqrt()
        # What rounding leaves of a neuron that never changes is no variance.
        least = activations[:, first : first + n_at_once].amin(dim=0)
        greatest = activations[:, first : first + n_at_once].amax(dim=0)
        alive = spread.isfinite() & (spread > 0) & (least < greatest)
        is_alive[first : first + n_at_once] = alive
        n_before, n_alive = n_alive, n_alive + int(alive.sum())
        rows[n_before:n_alive] = some[alive] / spread[alive, None]
    return rows[:n_alive], is_alive


@dataclass(frozen=True)
class SamplingError:
    """How far correlations of a sample are from those of the corpus: standard errors of ρ, rms.

    Attributes:
        n_tokens: T, tokens of the sample.
        n_pairs: pairs of neurons that it was measured on.
        measured: from the difference of the sample's two halves, in the order of the corpus: it
            holds what neighbouring tokens have in common, and what changes along the corpus.
        if_independent: (1 − ρ²)/√T, what it would be were the tokens drawn independently.
    """

    n_tokens: int
    n_pairs: int
    measured: float
    if_independent: float


def sampling_error(target: MatrixFree, n_neurons: int = 512) -> SamplingError:
    """The sampling error of ρ, measured on the pairs of ``n_neurons`` evenly spaced neurons.

    The estimates of two halves of T/2 tokens differ by twice the standard error of the whole.
    """
    step = max(1, target.n // n_neurons)
    rows = target.rows[::step].float()
    n, n_tokens = rows.shape
    first, second = torch.triu_indices(n, n, offset=1, device=rows.device)
    if len(first) == 0 or n_tokens < 4:
        return SamplingError(n_tokens, 0, math.nan, math.nan)
    halves = [torch.corrcoef(part)[first, second] for part in rows.tensor_split(2, dim=1)]
    # A neuron without variance in one half tells nothing there.
    difference = (halves[0] - halves[1]).double()
    difference = difference[difference.isfinite()]
    whole = (rows @ rows.T / n_tokens)[first, second].double()
    return SamplingError(
        n_tokens,
        len(difference),
        float(difference.square().mean().sqrt() / 2),
        float(((1 - whole.square()) / math.sqrt(n_tokens)).square().mean().sqrt()),
    )


def evenly_drawn(n_tokens: int, n_drawn: int) -> Tensor:
    """``n_drawn`` of the places 0 … n_tokens − 1, evenly spaced, ascending, no two the same."""
    n_drawn = min(n_drawn, n_tokens)
    return (torch.arange(n_drawn) * n_tokens + n_tokens // 2) // max(n_drawn, 1)


def sample_text(sample: dict[str, Any]) -> str:
    """What a map without a matrix was placed by, and what that costs, for a person.

    Args:
        sample: the map's ``sample`` in ``projection.json``.
    """
    text = f"placed by a sample of {sample['n_tokens']:,} of {sample['n_tokens_of']:,} tokens"
    if sample["measured"] is None:
        return text
    return f"{text}, whose ρ is off by {sample['measured']:.2g} (root mean square)"
