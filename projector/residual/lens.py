"""The logit lens: predictions of the model's own final norm and head from the stream at every
layer.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens". A reading is a layer and a point in
its block: before the first block (``resid_pre``), between attention and MLP (``resid_mid``), after
the block (``resid_post``). The last reading is the model's own prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projector.errors import SettingError, UserError, check_choice, check_least, check_text, named
from projector.model.architecture.stream.readout import Readout
from projector.progress import Progress, Silent
from projector.projection.provenance import dtype_name
from projector.residual.outliers import describe_outliers
from projector.residual.readings import measuring
from projector.residual.readings.measuring import ConstantGuess, LensMeter, Measured
from projector.residual.readings.records import STREAMS, Lens, LensRow, Reading, Summary
from projector.residual.readings.streams import find_readings, last_reading, read_streams
from projector.residual.readings.tuned_lens import TunedLens
from projector.residual.settings import check_numbers
from projector.residual.subject import Subject
from projector.residual.tokens import find_position

__all__ = ["STREAMS", "Lens", "LensRow", "Reading", "Summary", "lens", "run_lens", "run_lenses"]


def lens(
    model: Subject | str,
    prompt: str | Sequence[int],
    *,
    chat: bool = False,
    n_top: int = 5,
    n_last: int | None = None,
    keep_outliers: bool = False,
    tuned: TunedLens | Path | str | None = None,
    progress: Progress | None = None,
) -> Lens:
    """Read a prompt at every layer with the model's own final norm and head.

    Args:
        model: a name for :func:`projector.model.loading.load_model`, or a subject.
        prompt: text, to which the model's first special token is prepended; or token ids of the
            model.
        chat: apply the model's chat template to it, as a user's turn.
        n_top: number of tokens to list at each layer and position.
        n_last: number of tokens to read, from the end of the prompt; None for all.
        keep_outliers: include tokens with an outlying norm in averages.
        tuned: a tuned lens, or its folder, to read the prompt with.

    Raises:
        UserError: as for :func:`run_lens`; also for a model or prompt that can't be read, or a
            tuned lens for other weights.
    """
    check_numbers(n_top=n_top, n_last=n_last)
    check_text("prompt", prompt if isinstance(prompt, str) else None)
    if tuned is not None and not isinstance(tuned, TunedLens):
        tuned = TunedLens.load(tuned)
    subject = Subject.of(model)
    (found,) = run_lenses(
        subject,
        subject.ids_of(prompt, as_chat=chat),
        [tuned],
        n_top=n_top,
        n_last=n_last,
        keep_outliers=keep_outliers,
        progress=progress,
    )
    return found


def run_lens(
    subject: Subject, ids: Sequence[int], *, tuned: TunedLens | None = None, **options: Any
) -> Lens:
    """Read a prompt with one lens; see :func:`run_lenses` for its options."""
    (found,) = run_lenses(subject, ids, [tuned], **options)
    return found


@torch.no_grad()
def run_lenses(
    subject: Subject,
    ids: Sequence[int],
    lenses: Sequence[TunedLens | None],
    *,
    n_top: int = 5,
    n_last: int | None = None,
    positions: Sequence[int] | None = None,
    streams: Sequence[str] = STREAMS,
    keep_outliers: bool = False,
    n_at_once: int | None = None,
    progress: Progress | None = None,
) -> list[Lens]:
    """Read a prompt at every layer with the model's final norm and head and several lenses.

    This costs one forward pass, and for each lens one product with the head per reading and
    position. The streams are in memory, readings × positions × H; logits are in memory for at most
    ``n_at_once`` positions of one reading.

    Args:
        ids: token ids of the prompt, see :meth:`Subject.ids_of`.
        lenses: the lenses; None for the logit lens. A tuned lens transforms each stream before it
            is read; readings without a map are left out. The last reading is not transformed.
        n_top: number of tokens to list at each reading and position.
        n_last: number of positions to read, from the end, if ``positions`` is None.
        positions: the positions to read, where negative values count from the end; None for all.
        streams: streams from :data:`STREAMS`. ``resid_pre`` is read for layer 0 only, because a
            later layer's is the previous ``resid_post``. The model's own prediction is always read.
        keep_outliers: include tokens with an outlying norm in averages.
        n_at_once: number of positions to read at a time; None for as many as fit into
            ``BUFFER_BYTES`` of :mod:`projector.residual.readings.measuring`.

    Raises:
        UserError: for an encoder or a model without a head; an empty prompt or one longer than the
            model's context; a tuned lens for other weights; or non-finite logits.
        SettingError: on ``n_top``, ``n_last``, ``streams`` or ``positions``.
    """
    check_numbers(n_top=n_top, n_last=n_last)
    check_least("n_at_once", n_at_once, 1)
    readout = subject.readout
    ids = subject.ids_of(ids)
    if positions is None:
        positions = range(0 if n_last is None else max(0, len(ids) - n_last), len(ids))
    chosen = sorted({find_position(len(ids), position) for position in positions})
    plans = [(tuned, *_choose_readings(subject, streams, tuned)) for tuned in lenses]
    union = _union([readings for _, readings, _ in plans])
    kept, norms = read_streams(subject, subject.inputs(ids), union, torch.tensor(chosen))
    following = torch.tensor([ids[p + 1] if p + 1 < len(ids) else -1 for p in chosen])
    results = []
    for tuned, readings, missing in plans:
        outliers = describe_outliers(norms[[union.index(each) for each in readings]])
        left_out = set() if keep_outliers else {each.position for each in outliers}
        found, baseline = _measure(
            readout,
            {each: kept[each] for each in readings},
            following,
            torch.tensor([position not in left_out for position in chosen]),
            n_top=min(n_top, readout.n_vocabulary),
            tuned=tuned,
            n_at_once=n_at_once or measuring.n_at_once(readout.n_vocabulary),
            progress=progress or Silent(),
        )
        _check_finite(found, readings, subject)
        wanted = torch.cat([found.top_ids.reshape(-1), torch.tensor(ids)]).unique()
        results.append(
            Lens(
                model=subject.loaded.identifier,
                lens="logit lens" if tuned is None else "tuned lens",
                ids=tuple(ids),
                positions=tuple(chosen),
                readings=tuple(readings),
                **vars(found),
                baseline=baseline,
                outliers=outliers,
                outliers_left_out=not keep_outliers,
                missing=missing,
                pieces=subject.pieces(wanted.tolist()),
            )
        )
    return results


def _union(several: Sequence[Sequence[Reading]]) -> list[Reading]:
    """Each reading once, in the order of the stream."""
    return sorted(
        {each for readings in several for each in readings},
        key=lambda each: (each.layer, STREAMS.index(each.stream)),
    )


def _choose_readings(
    subject: Subject, streams: Sequence[str], tuned: TunedLens | None
) -> tuple[list[Reading], str | None]:
    """What is read, the model's own prediction last; and why a stream is missing."""
    for each in streams:
        check_choice("streams", each, STREAMS)
    found, missing = find_readings(subject.architecture, streams)
    last = last_reading(subject.architecture)
    if tuned is not None:
        tuned.check(subject)
        found = [each for each in found if each in tuned.maps]
    readings = [each for each in found if each != last]
    if not readings and "resid_post" not in streams:
        raise SettingError(
            "streams", ", ".join(streams), "can't be read from this model", missing or ""
        )
    return [*readings, last], missing


def _measure(
    readout: Readout,
    kept: Mapping[Reading, Tensor],
    following: Tensor,
    is_counted: Tensor,
    *,
    n_top: int,
    tuned: TunedLens | None,
    n_at_once: int,
    progress: Progress,
) -> tuple[Measured, float | None]:
    """What is measured of streams (P, H), the last one the model's own; and the baseline of KL.

    Args:
        following: (P,) int64, the tokens that come next; −1 where none does.
        is_counted: (P,) bool, positions that averages are over.
    """
    *before, final = kept.values()
    found = Measured.empty(len(kept), len(final), n_top)
    constant = ConstantGuess(readout.n_vocabulary)
    progress.begin("Reading", len(final), "positions")
    for start in range(0, len(final), n_at_once):
        rows = slice(start, min(start + n_at_once, len(final)))
        reader = LensMeter(readout, final[rows], following[rows].to(final.device), n_top)
        constant.add(reader, is_counted[rows])
        found.add(len(before), rows, reader.final)
        for s, (reading, stream) in enumerate(zip(kept, before, strict=False)):
            read = stream[rows] if tuned is None else tuned.translate(reading, stream[rows])
            found.add(s, rows, reader.read(read))
        progress.advance(rows.stop - rows.start)
    progress.end()
    found.mark_last(following < 0)
    return found, constant.kl()


def _check_finite(found: Measured, readings: Sequence[Reading], subject: Subject) -> None:
    is_finite = (found.top_probabilities.isfinite().all(dim=-1) & found.kl.isfinite()).all(dim=-1)
    if bool(is_finite.all()):
        return
    reading = readings[int((~is_finite).nonzero()[0, 0])]
    raise UserError(
        f"the logits of layer {reading.layer} ({reading.stream}) are not finite in "
        f"{dtype_name(subject.model)}: try {named('dtype', 'float32')}",
        setting="dtype",
        value=dtype_name(subject.model),
    )
