"""A sample of tokens, for maps with too many neurons for a correlation matrix.

Correlations are computed from it on demand
(:class:`~projector.statistics.correlations.MatrixFree`), and have a sampling error because only
some tokens were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.statistics.correlations import MatrixFree
from projector.statistics.covariance import Together
from projector.statistics.precision import full_float32

# For each number of a sample, what placing its map takes beside it: standardized rows in half
# precision, of the whole and of both halves.
STANDARDIZED_BYTES = 4
# Numbers of a sample that are looked at, or standardized, at a time.
_AT_ONCE = 1 << 22
# Runs of neighbouring tokens whose correlations are compared: enough for a mean over the corpus.
_N_RUNS = 32


class TokenSample:
    """Activations of evenly drawn tokens of a corpus, and the half that each belongs to.

    Args:
        n_neurons: N.
        n_corpus_tokens: number of tokens of the corpus that count.
        n_drawn: T, the number of tokens to draw.
        dtype: dtype of the model.
        device: the device of the tensors.
    """

    def __init__(
        self,
        n_neurons: int,
        n_corpus_tokens: int,
        n_drawn: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_corpus_tokens = n_corpus_tokens
        self._places = evenly_drawn(n_corpus_tokens, n_drawn)
        # A place that is not yet seen holds 0, so that the samples of several processes add up.
        self.rows = torch.zeros(len(self._places), n_neurons, dtype=dtype, device=device)
        self._is_first = torch.zeros(len(self._places), dtype=torch.int32, device=device)

    @property
    def n_neurons(self) -> int:
        return self.rows.shape[1]

    def update(self, rows: Tensor, kept: Tensor, n_before: int, is_first: Tensor) -> None:
        """Store the drawn tokens of a batch.

        Args:
            rows: (n_positions, N) activations of a whole batch.
            kept: (n_kept,), the positions that count, ascending.
            n_before: number of tokens that count in earlier batches.
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
        """Add the tokens that every other process has drawn, in each process."""
        self.rows = together.summed(self.rows)
        self._is_first = together.summed(self._is_first)

    def halves(self) -> tuple[Tensor, Tensor]:
        """Which tokens of the sample belong to the first and to the second half of the corpus; (T,)
        bool each.
        """
        is_first = self._is_first > 0
        return is_first, ~is_first

    def undefined(self) -> tuple[Tensor, Tensor]:
        """Count values that are NaN or infinite.

        Returns:
            (T,) bool, tokens on which every neuron is NaN or infinite; and (N,) int64, how often
            each neuron is on the remaining tokens.
        """
        is_lost, counts = [], torch.zeros(self.n_neurons, dtype=torch.int64)
        for rows in self.rows.split(max(1, _AT_ONCE // max(self.n_neurons, 1))):
            broken = ~rows.isfinite()
            lost = broken.all(dim=1)
            counts += broken[~lost].sum(dim=0).cpu()
            is_lost.append(lost)
        return torch.cat(is_lost), counts

    def state(self) -> dict[str, Tensor]:
        """The exact state as tensors."""
        return {"rows": self.rows, "is_first": self._is_first}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`state`."""
        self.rows = state["rows"].to(self.rows.device)
        self._is_first = state["is_first"].to(self.rows.device)


def standardize(
    activations: Tensor, dtype: torch.dtype = torch.float32, chosen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Standardise activations for :class:`~projector.statistics.correlations.MatrixFree`.

    Args:
        activations: (n_tokens, N), in any float dtype.
        dtype: of the result; float16 halves its memory, and its rounding moves ρ by less than 1e-3.
        chosen: (n_tokens,) bool, the T tokens to use; None for all.

    Returns:
        (n_alive, T) with mean 0 and mean square 1 over the tokens, and (N,) bool: which neurons
        these are. Neurons without variance, or with a NaN or infinite value, are left out.
    """
    n_neurons, device = activations.shape[1], activations.device
    n_tokens = len(activations) if chosen is None else int(chosen.sum())
    is_alive = torch.zeros(n_neurons, dtype=torch.bool, device=device)
    rows = torch.empty(n_neurons, n_tokens, dtype=dtype, device=device)
    if n_tokens == 0:
        return rows[:0], is_alive
    n_alive = 0
    # In float64, and some neurons at a time, so that it costs no second copy.
    n_at_once = max(1, _AT_ONCE // n_tokens)
    for first in range(0, n_neurons, n_at_once):
        some = activations[:, first : first + n_at_once]
        some = (some if chosen is None else some[chosen]).T.double()
        # What rounding leaves of a neuron that never changes is not variance.
        changes = some.amin(dim=1) < some.amax(dim=1)
        some -= some.mean(dim=1, keepdim=True)
        spread = some.square().mean(dim=1).sqrt()
        alive = spread.isfinite() & (spread > 0) & changes
        is_alive[first : first + n_at_once] = alive
        n_before, n_alive = n_alive, n_alive + int(alive.sum())
        rows[n_before:n_alive] = some[alive] / spread[alive, None]
    return rows[:n_alive], is_alive


@dataclass(frozen=True)
class SamplingError:
    """Sampling error of correlations: the root mean square standard error of ρ.

    Both errors are 0 if all tokens were drawn.

    Attributes:
        n_tokens: T, the number of tokens in the sample.
        n_corpus_tokens: the number of tokens it was drawn from.
        n_pairs: number of pairs of neurons that were measured.
        measured: estimated from the difference of two halves of the sample, which alternate between
            runs of tokens; includes the dependence of neighbouring tokens.
        if_independent: (1 − ρ²)/√T, the error for independent tokens.
    """

    n_tokens: int
    n_corpus_tokens: int
    n_pairs: int
    measured: float
    if_independent: float


def sampling_error(target: MatrixFree, n_corpus_tokens: int, n_neurons: int = 512) -> SamplingError:
    """Measure the sampling error of ρ on the pairs of ``n_neurons`` evenly spaced neurons.

    The estimates from two halves of T/2 tokens differ by twice the standard error of the whole. For
    a finite corpus of M tokens, the error is multiplied by √(1 − T/M) (Cochran 1977, "Sampling
    Techniques", 2.6).
    """
    step = max(1, target.n // n_neurons)
    rows = target.rows[::step].float()
    n, n_tokens = rows.shape
    first, second = torch.triu_indices(n, n, offset=1, device=rows.device)
    if len(first) == 0 or n_tokens < 4:
        return SamplingError(n_tokens, n_corpus_tokens, 0, math.nan, math.nan)
    remains = math.sqrt(max(0.0, 1 - n_tokens / n_corpus_tokens))
    # Runs, that neighbours stay together; in turns, that both halves see all of the corpus.
    n_runs = min(_N_RUNS, n_tokens // 2)
    of_first = (torch.arange(n_tokens, device=rows.device) * n_runs // n_tokens) % 2 == 0
    with full_float32():
        halves = [torch.corrcoef(rows[:, part])[first, second] for part in (of_first, ~of_first)]
        whole = (rows @ rows.T / n_tokens)[first, second].double()
    # A neuron without variance in one half tells nothing there.
    difference = (halves[0] - halves[1]).double()
    difference = difference[difference.isfinite()]
    return SamplingError(
        n_tokens,
        n_corpus_tokens,
        len(difference),
        remains * float(difference.square().mean().sqrt() / 2),
        remains * float(((1 - whole.square()) / math.sqrt(n_tokens)).square().mean().sqrt()),
    )


def evenly_drawn(n_tokens: int, n_drawn: int) -> Tensor:
    """Draw ``n_drawn`` of the indices 0 … n_tokens − 1, ascending: one from each of ``n_drawn``
    equal intervals.

    The index within an interval is random with a fixed seed. With even steps, all drawn tokens
    might come from only a few positions in their sequences.
    """
    n_drawn = min(n_drawn, n_tokens)
    begins = torch.arange(n_drawn + 1) * n_tokens // max(n_drawn, 1)
    share = torch.rand(n_drawn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return begins[:-1] + (share * begins.diff()).long()
