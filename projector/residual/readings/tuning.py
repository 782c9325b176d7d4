"""Train a tuned lens, so that each layer's prediction approaches the model's own.

Belrose et al. 2023 (arXiv:2303.08112): the maps start as the identity, and minimise KL(final ‖
lens) over a corpus. Each layer's map is trained independently. The last sequences of the
corpus are held out: on them the tuned lens is compared with the logit lens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from projector.corpus.batches import Batch, Corpus
from projector.corpus.documents import Document
from projector.corpus.tokens import read_corpus
from projector.errors import UserError, named
from projector.model.architecture.stream.readout import Readout
from projector.model.context import choose_sequence_length
from projector.model.loading import input_device
from projector.progress import Progress, Silent
from projector.projection.provenance import model_facts, versions
from projector.residual.readings.measuring import ConstantGuess, LensMeter, n_at_once
from projector.residual.readings.records import Reading
from projector.residual.readings.settings import TuningSettings
from projector.residual.readings.streams import find_readings, last_reading, read_streams
from projector.residual.readings.tuned_lens import Translation, TunedLens
from projector.residual.subject import Subject

_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.1, 8192
_LARGEST_GRADIENT = 1.0


def tune_lens(
    subject: Subject | str,
    corpus: str | Iterable[Document],
    settings: TuningSettings | None = None,
    *,
    progress: Progress | None = None,
) -> TunedLens:
    """Train a map for the embedding and for the output of every layer except the last.

    A step costs one forward pass over its tokens, and for each map about three products with the
    head. The model is not changed.

    Args:
        subject: a subject, or a model's name.
        corpus: see :func:`projector.corpus.sources.read_documents`, or the documents themselves.
        settings: number and size of the training steps; None for the defaults.
        progress: receives progress reports; None for none.

    Raises:
        UserError: for a model without a causal head, or a corpus that can't be read or has fewer
            than two sequences.
        SettingError: on ``sequence_length``, if it is longer than the model's context.
    """
    subject, settings = Subject.of(subject), settings or TuningSettings()
    progress = progress or Silent()
    readout = subject.readout
    length = choose_sequence_length(
        subject.model, subject.loaded.tokenizer, settings.sequence_length
    )
    n_sequences = max(1, settings.tokens_per_step // length)
    n_wanted = settings.n_steps * n_sequences * length
    progress.begin("Reading the corpus", None, "documents")
    tokens = read_corpus(
        corpus,
        subject.loaded.tokenizer,
        sequence_length=length,
        max_tokens=n_wanted + min(_MOST_HELD_OUT, n_wanted),
        advance=progress.advance,
    )
    _check_sequences(tokens, length)
    n_held_out = max(1, min(_MOST_HELD_OUT // length, int(_HELD_OUT_SHARE * tokens.n_sequences)))
    n_train = tokens.n_sequences - n_held_out
    last = last_reading(subject.architecture)
    found = find_readings(subject.architecture, ("resid_pre", "resid_post"))[0]
    readings = [each for each in found if each != last]
    if not readings:
        raise UserError(
            "this model has a single layer and no stream before it, so there is nothing to tune"
        )
    trainer = _Trainer(readout, readings, settings, device=input_device(subject.model))
    generator = np.random.default_rng(settings.seed)
    order = _cycled(generator, n_train)
    progress.begin("Training", settings.n_steps, "steps")
    for step in range(settings.n_steps):
        chosen = [next(order) for _ in range(n_sequences)]
        kept = _streams(subject, tokens, chosen, [*readings, last])
        trainer.step(kept, kept[last], 1 - step / settings.n_steps)
        progress.advance(1)
    progress.end()
    maps = trainer.maps()
    held_out = _compare(
        subject, tokens, range(n_train, tokens.n_sequences), TunedLens(maps, {}), progress
    )
    facts = {
        "model": {
            **asdict(model_facts(subject.loaded, subject.architecture)),
            "n_hidden": readout.n_hidden,
        },
        "corpus": {
            "source": tokens.source,
            "sha256": tokens.sha256,
            "n_tokens": tokens.n_tokens,
            "n_tokens_available": tokens.n_available,
        },
        "settings": {**asdict(settings), "sequence_length": length},
        "held_out": held_out,
        "versions": versions(),
    }
    return TunedLens(maps, facts)


def _check_sequences(tokens: Corpus, length: int) -> None:
    """Raise a UserError unless one sequence can be held out."""
    if tokens.n_sequences < 2:
        raise UserError(
            f"corpus '{tokens.source}' has only one sequence of {length} tokens, but training "
            f"needs two: give more text, or a smaller {named('sequence_length')}",
            setting="sequence_length",
            value=length,
        )


def _cycled(generator: np.random.Generator, n: int) -> Iterator[int]:
    """Numbers below n in random order, and again when all were given."""
    while True:
        yield from (int(i) for i in generator.permutation(n))


def _streams(
    subject: Subject, tokens: Corpus, chosen: Sequence[int], readings: Sequence[Reading]
) -> dict[Reading, Tensor]:
    """The streams (P, H) of the tokens that count in some sequences."""
    batch = _batch(tokens, chosen)
    device = input_device(subject.model)
    inputs = {
        "input_ids": batch.input_ids.to(device),
        "attention_mask": batch.attention_mask.to(device),
    }
    rows = batch.keep.reshape(-1).nonzero()[:, 0]
    return read_streams(subject, inputs, readings, rows)[0]


def _batch(tokens: Corpus, chosen: Sequence[int]) -> Batch:
    """Some sequences, padded on the right."""
    parts = [tokens.ids[tokens.starts[i] : tokens.starts[i + 1]] for i in chosen]
    lengths = torch.tensor([len(part) for part in parts])
    place = torch.arange(int(lengths.max()))
    mask = place < lengths[:, None]
    ids = torch.full(mask.shape, tokens.pad_id, dtype=torch.int64)
    ids[mask] = torch.from_numpy(np.concatenate(parts).astype(np.int64))
    return Batch(ids, mask.long(), mask & (place >= tokens.skip_first), 0)


class _Trainer:
    """The maps, and Adam for all of them."""

    def __init__(
        self,
        readout: Readout,
        readings: Sequence[Reading],
        settings: TuningSettings,
        device: torch.device,
    ) -> None:
        self._readout, self._rate = readout, settings.learning_rate
        n = readout.n_hidden
        self._parts = {
            reading: (
                torch.zeros(n, n, device=device, requires_grad=True),
                torch.zeros(n, device=device, requires_grad=True),
            )
            for reading in readings
        }
        parameters = [part for pair in self._parts.values() for part in pair]
        self._adam = torch.optim.Adam(parameters, lr=self._rate)

    def step(self, kept: dict[Reading, Tensor], final: Tensor, share: float) -> None:
        """One step on streams (P, H).

        Args:
            final: the last block's output.
            share: of the first step's rate.
        """
        for group in self._adam.param_groups:
            group["lr"] = self._rate * share
        self._adam.zero_grad()
        size = n_at_once(self._readout.n_vocabulary)
        for start in range(0, len(final), size):
            rows = slice(start, start + size)
            with torch.no_grad():
                target = torch.softmax(self._readout.logits(final[rows]), dim=-1)
            for reading, pair in self._parts.items():
                with torch.enable_grad():
                    moved = Translation(*pair).apply(kept[reading][rows])
                    logits = self._readout.logits(moved.to(final.dtype))
                    # KL(final ‖ lens), but for the entropy of the final distribution.
                    cross = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
                    # Of the maps alone: the head's own gradient is as large as the head.
                    gradients = torch.autograd.grad(cross / len(final), pair)
                for part, gradient in zip(pair, gradients, strict=True):
                    part.grad = gradient if part.grad is None else part.grad.add_(gradient)
        for pair in self._parts.values():
            torch.nn.utils.clip_grad_norm_(pair, _LARGEST_GRADIENT)
        self._adam.step()

    def maps(self) -> dict[Reading, Translation]:
        """The maps as they are now, on the CPU."""
        return {
            reading: Translation(*(part.detach().cpu().clone() for part in pair))
            for reading, pair in self._parts.items()
        }


@torch.no_grad()
def _compare(
    subject: Subject, tokens: Corpus, chosen: Sequence[int], lens: TunedLens, progress: Progress
) -> dict[str, object]:
    """Mean KL(final ‖ lens) of both lenses over held-out sequences, in nats."""
    readout, last = subject.readout, last_reading(subject.architecture)
    readings = list(lens.maps)
    totals = {name: torch.zeros(len(readings), dtype=torch.float64) for name in ("logit", "tuned")}
    baseline = ConstantGuess(readout.n_vocabulary)
    n_tokens = 0
    progress.begin("Comparing", len(chosen), "sequences")
    for i in chosen:
        kept = _streams(subject, tokens, [i], [*readings, last])
        final = kept[last]
        size = n_at_once(readout.n_vocabulary)
        for start in range(0, len(final), size):
            rows = slice(start, start + size)
            nowhere = torch.full((len(final[rows]),), -1, device=final.device)
            reader = LensMeter(readout, final[rows], nowhere, 1)
            baseline.add(reader, torch.ones(len(nowhere), dtype=torch.bool))
            for s, reading in enumerate(readings):
                stream = kept[reading][rows]
                for name, read in (("logit", stream), ("tuned", lens.translate(reading, stream))):
                    totals[name][s] += reader.read(read).kl.double().sum().cpu()
        n_tokens += len(final)
        progress.advance(1)
    progress.end()
    return {
        "n_tokens": n_tokens,
        "baseline_kl": baseline.kl(),
        "rows": [
            {
                "layer": reading.layer,
                "stream": reading.stream,
                "logit_lens_kl": float(totals["logit"][s]) / n_tokens,
                "tuned_lens_kl": float(totals["tuned"][s]) / n_tokens,
            }
            for s, reading in enumerate(readings)
        ],
    }
