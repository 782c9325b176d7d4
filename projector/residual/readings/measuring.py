"""Measure a lens's distribution over the vocabulary, a few positions at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projector.model.architecture.stream.readout import Readout
from projector.residual.logits.highest import find_highest
from projector.residual.readings.records import finite

# Of positions × vocabulary, at once: as many as the head multiplies fast. Two arrays of this size
# exist at a time, three where the model computes in half precision.
BUFFER_BYTES = 32 * 2**20
_LEAST_AT_ONCE = 16
# Numbers that passes over the vocabulary go through at once: as many as a cache holds.
_CACHED = 2**18


def n_at_once(n_vocabulary: int) -> int:
    """The number of positions to read at a time."""
    return max(_LEAST_AT_ONCE, BUFFER_BYTES // (4 * n_vocabulary))


@dataclass(frozen=True)
class Chunk:
    """The measures of a lens at c positions: (c,) each, and (c, n_top)."""

    top_ids: Tensor
    top_probabilities: Tensor
    entropy: Tensor
    log_probability: Tensor
    rank: Tensor
    kl: Tensor


class LensMeter:
    """Measures lens predictions at c positions against the model's own predictions.

    It stores two arrays (c, V): the final distribution, and one lens's logits.
    """

    def __init__(self, readout: Readout, final: Tensor, target: Tensor, n_top: int) -> None:
        """
        Args:
            final: (c, H), the last block's output.
            target: (c,) int64, the tokens that come next; negative where none does.
            n_top: how many of the highest tokens are told.
        """
        self._readout, self._n_top = readout, n_top
        self._target = target.clamp(min=0)[:, None]
        logits = self._logits(final)
        self.final_probabilities = torch.empty_like(logits)
        self._final_entropy: Tensor | None = None
        n_rows = max(torch.get_num_threads(), _CACHED // logits.shape[1])
        self._work = torch.empty_like(logits[:n_rows])
        self.final = self._measure(logits)
        self._final_entropy = self.final.entropy

    def read(self, stream: Tensor) -> Chunk:
        """Measure the lens on a stream (c, H)."""
        return self._measure(self._logits(stream))

    def _logits(self, stream: Tensor) -> Tensor:
        return self._readout.finish_(self._readout.raw(stream))

    def _measure(self, logits: Tensor) -> Chunk:
        n = len(self._work)
        parts = [
            self._measure_rows(logits[start : start + n], slice(start, start + n))
            for start in range(0, len(logits), n)
        ]
        fields = zip(*(vars(part).values() for part in parts), strict=True)
        return Chunk(*map(torch.cat, fields))

    def _measure_rows(self, logits: Tensor, rows: slice) -> Chunk:
        """Each line but the first few passes over the vocabulary once."""
        work, final = self._work[: len(logits)], self.final_probabilities[rows]
        is_final = self._final_entropy is None
        highest, top_ids = find_highest(logits, self._n_top)
        # Near 0, sums over the vocabulary lose less.
        logits.sub_(highest[:, :1])
        target = logits.gather(1, self._target[rows])
        shares = torch.softmax(logits, dim=-1, out=final if is_final else work)
        top_probabilities = shares.gather(1, top_ids)
        log_sum = -top_probabilities[:, 0].log()
        entropy = log_sum - torch.mul(shares, logits, out=work).sum(dim=-1)
        if self._final_entropy is None:
            kl = torch.zeros_like(entropy)
        else:
            cross = log_sum - torch.mul(final, logits, out=work).sum(dim=-1)
            # Rounding alone can make it negative.
            kl = (cross - self._final_entropy[rows]).clamp_(min=0)
        log_probability = target[:, 0] - log_sum
        rank = torch.gt(logits, target, out=work).sum(dim=-1).long() + 1
        return Chunk(top_ids, top_probabilities, entropy, log_probability, rank, kl)


@dataclass(frozen=True)
class Measured:
    """The measures of S readings at P positions, on the CPU: the arrays of :class:`Lens`."""

    top_ids: Tensor
    top_probabilities: Tensor
    entropy: Tensor
    log_probability: Tensor
    rank: Tensor
    kl: Tensor

    @classmethod
    def empty(cls, n_readings: int, n_positions: int, n_top: int) -> Measured:
        shape = (n_readings, n_positions)
        return cls(
            top_ids=torch.empty((*shape, n_top), dtype=torch.int64),
            top_probabilities=torch.empty((*shape, n_top)),
            entropy=torch.empty(shape),
            log_probability=torch.empty(shape),
            rank=torch.empty(shape, dtype=torch.int64),
            kl=torch.empty(shape),
        )

    def add(self, s: int, rows: slice, chunk: Chunk) -> None:
        """Store the measures of reading ``s`` at some positions."""
        for name, values in vars(chunk).items():
            getattr(self, name)[s, rows] = values.cpu()

    def mark_last(self, is_last: Tensor) -> None:
        """Clear probabilities and ranks at positions (P,) bool without a next token."""
        self.log_probability[:, is_last] = torch.nan
        self.rank[:, is_last] = 0


class ConstantGuess:
    """The best prediction that is the same at every position: the mean of the final distributions.

    A lens that isn't better carries no information about its position. Its KL to the final
    distributions is the entropy of their mean minus the mean of their entropies.
    """

    def __init__(self, n_vocabulary: int) -> None:
        self._sum = torch.zeros(n_vocabulary, dtype=torch.float64)
        self._entropy, self._n = 0.0, 0

    def add(self, reader: LensMeter, is_counted: Tensor) -> None:
        """Add some of a reader's positions, (c,) bool."""
        shares = reader.final_probabilities
        counted = is_counted.to(shares.device)
        self._sum += (counted.to(shares.dtype) @ shares).double().cpu()
        self._entropy += float(reader.final.entropy[counted].double().sum())
        self._n += int(counted.sum())

    def kl(self) -> float | None:
        """Mean KL(final ‖ guess) in nats; None for fewer than two positions."""
        if self._n < 2:
            return None
        mean = self._sum / self._sum.sum()
        entropy = -torch.special.xlogy(mean, mean).sum()
        return finite((entropy - self._entropy / self._n).clamp(min=0))
