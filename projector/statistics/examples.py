"""Which text activates each neuron: its extremes over a corpus, and tokens drawn evenly from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from projector.corpus.batches import Corpus
from projector.corpus.numbering import CountedTokens, KeptTokens, token_numbers
from projector.errors import UserError
from projector.model.architecture.records import Architecture
from projector.model.capture import capture, evaluating, token_rows
from projector.statistics.covariance import Together
from projector.statistics.example_facts import MAP_TENSORS, SHARED_TENSORS, ExampleFacts
from projector.storage.entries import Entry
from projector.storage.places import check_place, disk_errors
from projector.storage.replacing import replacing_file
from projector.storage.tensors import write_tensors
from projector.storage.versions import Upgrade, upgraded

FORMAT = "transformer-projection-examples"
FORMAT_VERSION = 1
# Version → what turns what a file of it says into what one of the next does.
UPGRADES: Mapping[int, Upgrade] = {}
_TENSORS = (*SHARED_TENSORS, *MAP_TENSORS)
# What float16 holds of a number that is too large for it.
_MOST = 6e4
# Neighbouring positions whose greatest is kept until it is known where that is to be looked for.
_STRETCH = 16


@dataclass(frozen=True, eq=False)
class Examples:
    """Example activations of the N neurons of one layer and site over T tokens.

    Attributes:
        ids: (T,) int32, the tokens of all sequences in order.
        starts: (S + 1,) int64, where each sequence starts, and T.
        highest, lowest: (N, k) float32, each neuron's most extreme finite activations, the most
            extreme first, at most one per sequence.
        highest_at, lowest_at: (N, k) int64, their tokens; −1 if fewer than k.
        sample_at: (M,) int64, tokens drawn evenly from those that count.
        sample: (M, N) float16, the activations on these tokens.
        source: of the text, as in :class:`projector.corpus.tokens.Corpus`; None if it is not
            known.
        cut: reductions that a fit made to limit the size.

    For a large corpus, a fit stores only the T tokens around the examples, and each run of
    neighbouring tokens is a sequence.
    """

    ids: Tensor
    starts: Tensor
    highest: Tensor
    highest_at: Tensor
    lowest: Tensor
    lowest_at: Tensor
    sample_at: Tensor
    sample: Tensor
    source: str | None = None
    cut: tuple[str, ...] = ()

    @property
    def n_neurons(self) -> int:
        return int(self.sample.shape[1])

    @classmethod
    def of_file(cls, tensors: Mapping[str, Tensor], name: str, facts: ExampleFacts) -> Examples:
        """Read one map's examples from a file with all maps of a projection.

        Args:
            tensors: tensor name → tensor, as in ``examples.safetensors``.
            name: name of the map.
        """
        every = {each: tensors[each] for each in SHARED_TENSORS}
        every |= {each: tensors[f"{name}.{each}"] for each in MAP_TENSORS}
        places = {each: every[each].long() for each in ("highest_at", "lowest_at", "sample_at")}
        return cls(**every | places, source=facts.source, cut=facts.cut)

    def context(self, token: int, n_before: int, n_after: int) -> tuple[list[int], int]:
        """Ids of the tokens around a token in its sequence, and its index among them."""
        sequence = int(torch.searchsorted(self.starts, token, right=True)) - 1
        first = max(int(self.starts[sequence]), token - n_before)
        last = min(int(self.starts[sequence + 1]), token + n_after + 1)
        return self.ids[first:last].tolist(), token - first

    def before(self, token: int, most: int) -> list[int]:
        """Ids from the start of a token's sequence up to the token, at most the last ``most``."""
        return self.context(token, most - 1, 0)[0]

    def save(self, path: Path) -> None:
        """Write one safetensors file atomically.

        Raises:
            UserError: if the file can't be written.
        """
        check_place(path.parent)
        # A text: so it was in the first files.
        facts = json.dumps(
            {
                "format": FORMAT,
                "format_version": str(FORMAT_VERSION),
                "source": self.source,
                "cut": list(self.cut),
            }
        )
        tensors = {name: getattr(self, name) for name in _TENSORS}
        with disk_errors(path), replacing_file(path) as partial:
            write_tensors(partial, tensors, {"examples": facts})

    @classmethod
    def load(cls, path: Path) -> Examples:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: if the file is damaged, has another format, or a newer version.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get("examples", "{}"))
                facts = upgraded(
                    {**facts, "format_version": int(facts.get("format_version", 0))},
                    path,
                    format_name=FORMAT,
                    newest=FORMAT_VERSION,
                    upgrades=UPGRADES,
                    remedy="remove it",
                    if_foreign="remove it",
                )
                entry = Entry(facts)
                return cls(
                    **{name: file.get_tensor(name) for name in _TENSORS},
                    source=entry.maybe_text("source"),
                    # The first files did not say.
                    cut=entry.texts("cut") if "cut" in entry else (),
                )
        except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"'{path}' is damaged: remove it ({error})") from error


def gather_examples(
    model: nn.Module,
    architecture: Architecture,
    corpus: Corpus,
    layer: int,
    site: str,
    *,
    n_extremes: int = 10,
    n_sample: int = 4096,
    batch_size: int = 16,
    advance: Callable[[int], None] = lambda n: None,
) -> Examples:
    """Gather examples in one forward pass of the model over the corpus.

    The memory is (B, T, N) activations of a batch, plus 4 N k + M N numbers.

    Args:
        corpus: see :func:`projector.corpus.tokens.read_corpus`.
        n_extremes: k, extremes to keep for each neuron.
        n_sample: M, the number of tokens drawn evenly.
        advance: called with the sequences in each batch; an exception in it stops the run.

    Raises:
        UserError: if no token counts.
    """
    if corpus.n_tokens == 0:
        raise UserError("the corpus has no token that counts: give more text")
    block = architecture.blocks[layer]
    trunk = getattr(model, "base_model", model)
    device = next(model.parameters()).device
    evenly = np.linspace(0, corpus.n_tokens - 1, min(n_sample, corpus.n_tokens)).astype("int64")
    drawn, starts = torch.from_numpy(np.unique(evenly)), torch.from_numpy(corpus.starts)
    running = RunningExamples(block.widths[site], drawn, n_extremes, device)
    n_before = 0
    for batch in corpus.batches(batch_size):
        tokens = CountedTokens.of(batch, starts, n_before)

        def count(key: str, activation: Tensor, tokens: CountedTokens = tokens) -> None:
            rows = token_rows(activation, tokens.shape)
            running.update(rows, tokens.to(rows.device))

        with (
            torch.no_grad(),
            evaluating(model),
            capture({"neurons": block.taps[site]}, count, then_stop=True),
        ):
            trunk(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
            )
        n_before += batch.n_tokens
        advance(len(batch.input_ids))
    tokens_kept = KeptTokens.whole(corpus)
    return Examples(
        ids=tokens_kept.ids,
        starts=tokens_kept.starts,
        sample_at=token_numbers(corpus, drawn),
        source=corpus.source,
        cut=(),
        **running.found(),
    )


class RunningExamples:
    """Running extremes of N neurons, at most one per sequence, and activations on drawn tokens.

    If two activations are equal, the earlier one in the corpus comes first.

    Args:
        n_neurons: N.
        drawn: (M,) int64, the tokens to sample, as ascending indices among those that count.
        n_extremes: k, the number of highest and of lowest activations per neuron.
        device: the device of the tensors.
    """

    def __init__(
        self,
        n_neurons: int,
        drawn: Tensor,
        n_extremes: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_neurons, self._drawn = n_neurons, drawn
        # The highest of each neuron and, behind them, the lowest with their sign turned.
        shape = (n_extremes, 2 * n_neurons)
        self.values = torch.full(shape, -torch.inf, device=device)
        self.at = torch.full(shape, -1, dtype=torch.int64, device=device)
        # What is not yet seen holds 0, so that the samples of several processes add up.
        self.sample = torch.zeros(len(drawn), n_neurons, dtype=torch.float16, device=device)

    def update(self, rows: Tensor, tokens: CountedTokens) -> None:
        """Add a batch. Batches must come in the order of the corpus.

        This takes two passes over the activations, and sorts k + B values per neuron and sign.

        Args:
            rows: (B·T, N) activations, including padding.
            tokens: positions that count, on the same device.
        """
        rows = rows.detach()
        self._draw(rows, tokens)
        if tokens.stretch is not None:
            values = rows.view(*tokens.shape, -1)[:, tokens.stretch]
        else:
            assert tokens.filled is not None
            values = rows.index_select(0, tokens.filled).view(*tokens.shape, -1)
        if rows.device.type == "cpu":
            stretches = _of_stretches(values)
            best = stretches.amax(dim=1)
            if bool(best.isfinite().all()):
                self._count_some(values, stretches, best, tokens)
                return
        # On a GPU looking for positions that are of no use takes less than asking which are.
        is_finite = values.isfinite()
        high, high_at = torch.where(is_finite, values, -torch.inf).max(dim=1)
        low, low_at = torch.where(is_finite, values, torch.inf).min(dim=1)
        best = torch.cat([high, -low], dim=1).float()
        best[tokens.is_empty] = -torch.inf
        at = self._numbers(torch.cat([high_at, low_at], dim=1), tokens, slice(None))
        at = at.where(best.isfinite(), -1)
        self._merge(best, at)

    def _draw(self, rows: Tensor, tokens: CountedTokens) -> None:
        ends = torch.tensor([tokens.n_before, tokens.n_before + len(tokens.kept)])
        begin, end = torch.searchsorted(self._drawn, ends).tolist()
        if begin == end:
            return
        places = (self._drawn[begin:end] - tokens.n_before).to(tokens.kept.device)
        chosen = rows.index_select(0, tokens.kept[places]).float().clamp(-_MOST, _MOST)
        # Of the two zeros the positive one: sums over several processes give no other.
        self.sample[begin:end] = (chosen.half() + 0).to(self.sample.device)

    def _count_some(
        self, values: Tensor, stretches: Tensor, best: Tensor, tokens: CountedTokens
    ) -> None:
        """Of finite activations: positions are found where they are of use alone.

        Args:
            values: (B, T', N).
            stretches: (B, T'/16, 2N), see :func:`_of_stretches`.
            best: (B, 2N), the greatest of each sequence.
        """
        best[tokens.is_empty] = -torch.inf
        now = best.float()
        columns = (now > self.values[-1].to(now.device)).any(dim=0).nonzero()[:, 0]
        if not len(columns):
            return
        n_neurons, n_kept = self.n_neurons, len(self.values)
        kept = self.values.index_select(1, columns)
        order = torch.cat([kept, now.index_select(1, columns)]).sort(
            dim=0, descending=True, stable=True
        )
        chosen = order.indices[:n_kept]
        # Ranks, and columns among those, that this batch takes.
        rank, column = (chosen >= n_kept).nonzero().T
        sequence = chosen[rank, column] - n_kept
        signed = columns[column]
        greatest = best[sequence, signed, None]
        n_stretches, width = stretches.shape[1:]
        every = sequence[:, None] * n_stretches + torch.arange(n_stretches)
        of_each = _taken(stretches, every * width + signed[:, None])
        stretch = (of_each == greatest).to(torch.uint8).argmax(dim=1)
        # Behind the last there is the last again.
        near = stretch[:, None] * _STRETCH + torch.arange(_STRETCH)
        near = near.clamp(max=values.shape[1] - 1)
        strides = values.stride()
        firsts = sequence * strides[0] + (signed % n_neurons) * strides[2]
        looked_at = _taken(values, firsts[:, None] + near * strides[1])
        greatest = torch.where(signed[:, None] < n_neurons, greatest, -greatest)
        place = near[:, 0] + (looked_at == greatest).to(torch.uint8).argmax(dim=1)
        at = self.at.index_select(1, columns).gather(0, chosen.clamp(max=n_kept - 1))
        at[rank, column] = self._numbers(place, tokens, sequence)
        self.values.index_copy_(1, columns, order.values[:n_kept])
        self.at.index_copy_(1, columns, at)

    @staticmethod
    def _numbers(place: Tensor, tokens: CountedTokens, sequence: Tensor | slice) -> Tensor:
        """Numbers of tokens within the corpus, from their positions among those looked at."""
        first, numbers = tokens.first[sequence], tokens.numbers[sequence]
        if isinstance(sequence, slice):
            first, numbers = first[:, None], numbers[:, None]
        if tokens.stretch is not None:
            return numbers + place + tokens.stretch.start
        # What does not count was filled with the first that does.
        return numbers + torch.maximum(place, first)

    def _merge(self, best: Tensor, at: Tensor) -> None:
        """Take the greatest of what is kept and of (B, 2N) more, which come later."""
        n_kept = len(self.values)
        best, at = best.to(self.values.device), at.to(self.at.device)
        order = torch.cat([self.values, best]).sort(dim=0, descending=True, stable=True)
        self.values = order.values[:n_kept].contiguous()
        self.at = torch.cat([self.at, at]).gather(0, order.indices[:n_kept])

    def reduce(self, together: Together) -> None:
        """Add the results of every other process, in each process."""
        n_kept, width = self.values.shape
        values = together.stacked(self.values).reshape(-1, width)
        at = together.stacked(self.at).reshape(-1, width)
        # Those of several processes stand in no order of the corpus.
        at, order = at.sort(dim=0, stable=True)
        values, order = values.gather(0, order).sort(dim=0, descending=True, stable=True)
        self.values, self.at = values[:n_kept].contiguous(), at.gather(0, order[:n_kept])
        self.sample = together.summed(self.sample)

    def state(self) -> dict[str, Tensor]:
        """The exact state as tensors."""
        return {"values": self.values, "at": self.at, "sample": self.sample}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`state`."""
        device = self.values.device
        self.values, self.at = state["values"].to(device), state["at"].to(device)
        self.sample = state["sample"].to(device)

    def found(self) -> dict[str, Tensor]:
        """The results so far, on the CPU, as :class:`Examples`."""
        n = self.n_neurons
        values, at = self.values.cpu().T, self.at.cpu().T
        return {
            "highest": values[:n].contiguous(),
            "highest_at": at[:n].contiguous(),
            "lowest": -values[n:],
            "lowest_at": at[n:].contiguous(),
            "sample": self.sample.cpu(),
        }


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """Values by their places in memory from the first on: faster than by several indices."""
    extent = 1 + sum((n - 1) * s for n, s in zip(values.shape, values.stride(), strict=True))
    flat = values.as_strided((extent,), (1,))
    return flat.index_select(0, places.reshape(-1)).view(places.shape)


def _of_stretches(values: Tensor) -> Tensor:
    """The greatest of each stretch of neighbouring positions, and behind it that of the opposites.

    Args:
        values: (B, T', N).

    Returns:
        (B, ⌈T'/16⌉, 2N).
    """
    n_whole = values.shape[1] // _STRETCH
    whole = values[:, : n_whole * _STRETCH].unflatten(1, (n_whole, _STRETCH))
    high, low = [whole.amax(dim=2)], [whole.amin(dim=2)]
    if n_whole * _STRETCH < values.shape[1]:
        rest = values[:, n_whole * _STRETCH :]
        high.append(rest.amax(dim=1, keepdim=True))
        low.append(rest.amin(dim=1, keepdim=True))
    return torch.cat([torch.cat(high, dim=1), -torch.cat(low, dim=1)], dim=2)
