"""Which text drives each neuron: its extremes over a corpus, and tokens drawn evenly from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from projector.corpus.batches import Batch, Corpus
from projector.errors import UserError
from projector.model.architecture.records import Architecture
from projector.model.capture import capture, evaluating
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
_TENSORS = (
    "ids",
    "starts",
    "highest",
    "highest_at",
    "lowest",
    "lowest_at",
    "sample_at",
    "sample",
)


@dataclass(frozen=True, eq=False)
class Examples:
    """What N neurons of one layer and site do over T tokens.

    Attributes:
        ids: (T,) int32, the tokens of all sequences in order.
        starts: (S + 1,) int64, where each sequence starts, and T.
        highest, lowest: (N, k) float32, each neuron's greatest and least finite activations, the
            most extreme first, at most one from a sequence.
        highest_at, lowest_at: (N, k) int64, the tokens where; −1 where there are fewer than k.
        sample_at: (M,) int64, tokens drawn evenly from those that count.
        sample: (M, N) float16, the activations there.
        source: of the text, as in :class:`projector.corpus.tokens.Corpus`; None where it is not
            known.
        cut: what there was no room for, where a fit kept them.

    Where a fit kept them of a large corpus, T counts the tokens around those that are shown, and
    each stretch of neighbouring ones is a sequence of its own.
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
        """Those of one map, of a file that holds all maps of a projection.

        Args:
            tensors: tensor name → tensor, as in ``examples.safetensors``.
            name: the map's.
        """
        shared = {each: tensors[each] for each in SHARED_TENSORS}
        own = {each: tensors[f"{name}.{each}"] for each in MAP_TENSORS}
        every = shared | own
        places = {each: every[each].long() for each in ("highest_at", "lowest_at", "sample_at")}
        return cls(**every | places, source=facts.source, cut=facts.cut)

    def context(self, token: int, n_before: int, n_after: int) -> tuple[list[int], int]:
        """Ids of the tokens around one in its sequence, and which of them it is."""
        sequence = int(torch.searchsorted(self.starts, token, right=True)) - 1
        first = max(int(self.starts[sequence]), token - n_before)
        last = min(int(self.starts[sequence + 1]), token + n_after + 1)
        return self.ids[first:last].tolist(), token - first

    def before(self, token: int, most: int) -> list[int]:
        """Ids from the start of a token's sequence, or the last ``most``, up to the token."""
        return self.context(token, most - 1, 0)[0]

    def save(self, path: Path) -> None:
        """Write one safetensors file, in one step.

        Raises:
            UserError: if the place or the disk does not take it.
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
            UserError: if it is damaged, of another format, or of a newer version.
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
    """One forward pass of the model over the corpus.

    Memory: (B, T, N) activations of a batch, and 4 N k + M N numbers.

    Args:
        corpus: see :func:`projector.corpus.tokens.read_corpus`.
        n_extremes: k, the extremes that are kept of each neuron.
        n_sample: M, tokens drawn evenly.
        advance: called with the sequences of each batch; raising in it stops the work.

    Raises:
        UserError: if no token counts.
    """
    if corpus.n_tokens == 0:
        raise UserError("the corpus has no token that counts: give more text")
    block = architecture.blocks[layer]
    gathering = _Gathering(corpus, block.widths[site], n_extremes, n_sample)
    trunk = getattr(model, "base_model", model)
    device = next(model.parameters()).device
    passed: list[Tensor] = []
    taps = {"neurons": block.taps[site]}
    for batch in corpus.batches(batch_size):
        passed.clear()
        with (
            torch.no_grad(),
            evaluating(model),
            capture(
                taps, lambda key, tensor: passed.append(tensor.detach().clone()), then_stop=True
            ),
        ):
            trunk(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
            )
        gathering.count(batch, passed[0])
        advance(len(batch.input_ids))
    return gathering.examples(corpus)


class _Gathering:
    """Extremes and samples of N neurons, batch by batch.

    Args:
        n_extremes: of each neuron, and of each sign.
        n_sample: tokens drawn evenly from those that count.
    """

    def __init__(self, corpus: Corpus, n_neurons: int, n_extremes: int, n_sample: int) -> None:
        self.n_neurons, self._n_seen = n_neurons, 0
        self._starts = torch.from_numpy(corpus.starts.astype("int64"))
        # Of each sign, the greatest of each neuron, (k, N), and the tokens where.
        shape = (n_extremes, n_neurons)
        self._running = {
            sign: (torch.full(shape, -torch.inf), torch.full(shape, -1, dtype=torch.int64))
            for sign in (1, -1)
        }
        n_drawn = min(n_sample, corpus.n_tokens)
        evenly = np.linspace(0, corpus.n_tokens - 1, n_drawn).astype("int64")
        self._drawn = torch.from_numpy(np.unique(evenly))
        self._sample: list[Tensor] = []
        self._sample_at: list[Tensor] = []

    def count(self, batch: Batch, activation: Tensor) -> None:
        """Count in what the neurons do in a batch."""
        values = activation.reshape(*batch.input_ids.shape, self.n_neurons).float().cpu()
        first = self._starts[batch.first : batch.first + len(batch.input_ids)]
        for sign, before in self._running.items():
            self._running[sign] = _extremes(before, sign * values, batch.keep, first)
        # Tokens that count, by their number among all that do.
        place = batch.keep.nonzero()
        until = self._n_seen + len(place)
        here = self._drawn[(self._drawn >= self._n_seen) & (self._drawn < until)] - self._n_seen
        rows, columns = place[here].T
        self._sample.append(values[rows, columns].clamp(-6e4, 6e4).half())
        self._sample_at.append(first[rows] + columns)
        self._n_seen = until

    def examples(self, corpus: Corpus) -> Examples:
        """What was found over the whole corpus."""
        high, low = self._running[1], self._running[-1]
        return Examples(
            ids=torch.from_numpy(corpus.ids.astype("int32")),
            starts=self._starts,
            highest=high[0].T.contiguous(),
            highest_at=high[1].T.contiguous(),
            lowest=-low[0].T.contiguous(),
            lowest_at=low[1].T.contiguous(),
            sample_at=torch.cat(self._sample_at),
            sample=torch.cat(self._sample),
            source=corpus.source,
        )


def _extremes(
    before: tuple[Tensor, Tensor], values: Tensor, keep: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    """The k greatest of each neuron so far, (k, N), and the tokens where."""
    counts = keep[:, :, None] & values.isfinite()
    best, where = torch.where(counts, values, -torch.inf).max(dim=1)
    # A sequence in which no token counts has none.
    at = torch.where(best.isfinite(), first[:, None] + where, -1)
    values_now, at_now = torch.cat([before[0], best]), torch.cat([before[1], at])
    kept, chosen = values_now.topk(len(before[0]), dim=0)
    return kept, at_now.gather(0, chosen)
