"""A lens as a table of cells, with a row per reading and a column per token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.drawing.grids import Cell, CellGrid
from dashboard.drawing.text import number, tints
from projector.naming.words import compact
from projector.progress import Progress
from projector.residual.lens import run_lens
from projector.residual.subject import Subject

N_TOP = 5
_MOST_OUTLIERS = 5
# Most tokens of a table; most work, some seconds on a laptop; and work per update of the bar.
_MOST_CELLS, _MOST_PRODUCTS, _PRODUCTS_BETWEEN_SIGNS = 8_192, 3 * 10**11, 6 * 10**10
# Names of readings after attention, after the MLP, and before the first block.
_STREAMS = {"resid_pre": "embedding", "resid_mid": "attention", "resid_post": "MLP"}
_LONG = {
    "resid_pre": "the embedding",
    "resid_mid": "the stream after attention",
    "resid_post": "the stream after the MLP",
}


@dataclass(frozen=True, eq=False)
class LensTable:
    """A lens's readings at S places of the stream for T tokens of a prompt.

    Attributes:
        readings: layer and stream of each row, in the order of the model.
        first: the position of the first of the T tokens.
        texts: of each id in ``top_ids``, as it is shown.
        top_ids, top_probabilities: (S, T, n), the most probable first.
        probability, rank, entropy, kl: (S, T); NaN if the next token is not known.
        n_vocabulary: size of the model's vocabulary.
        outliers: positions whose stream is many times as long as usual, with the ratio; None if the
            stream isn't finite.
        baseline: KL of the best constant guess for the T tokens, in nats; None if that is not
            known.
        missing: why there is no reading between attention and MLP; None if there is one.
    """

    readings: tuple[tuple[int, str], ...]
    first: int
    texts: dict[int, str]
    top_ids: NDArray[np.int64]
    top_probabilities: NDArray[np.floating]
    probability: NDArray[np.floating]
    rank: NDArray[np.floating]
    entropy: NDArray[np.floating]
    kl: NDArray[np.floating]
    n_vocabulary: int
    outliers: tuple[tuple[int, float | None], ...] = ()
    missing: str | None = None
    baseline: float | None = None

    @property
    def n_tokens(self) -> int:
        """T, the number of tokens."""
        return int(self.kl.shape[1])

    def top(self, reading: int, position: int) -> list[tuple[int, str, float]]:
        """Id, text and probability of the most probable tokens of one cell."""
        at = position - self.first
        ids, shares = self.top_ids[reading, at].tolist(), self.top_probabilities[reading, at]
        return [(i, self.texts[i], float(p)) for i, p in zip(ids, shares.tolist(), strict=True)]


def most_at_once(subject: Subject) -> int:
    """The number of tokens that a page reads at once: some seconds of work, and few enough to draw.

    Raises:
        UserError: if the model has no head that predicts the next token.
    """
    return max(8, min(_MOST_CELLS // _n_readings(subject), _MOST_PRODUCTS // _products(subject)))


def _n_readings(subject: Subject) -> int:
    return 2 * len(subject.architecture.blocks) + 1


def _products(subject: Subject) -> int:
    """Multiplications and additions for reading one token."""
    readout = subject.readout
    return 2 * _n_readings(subject) * readout.n_hidden * readout.n_vocabulary


def read_lens(
    subject: Subject,
    ids: Sequence[int],
    first: int,
    end: int,
    *,
    progress: Progress | None = None,
) -> LensTable:
    """Run the lens over a prompt, and keep its readings at positions from ``first`` to ``end``.

    Raises:
        UserError: see :func:`projector.residual.lens.run_lens`.
    """
    lens = run_lens(
        subject,
        ids,
        n_top=N_TOP,
        positions=range(first, end),
        n_at_once=max(4, _PRODUCTS_BETWEEN_SIGNS // _products(subject)),
        progress=progress,
    )
    rank = lens.rank.float()
    rank[rank == 0] = float("nan")
    return LensTable(
        readings=tuple((each.layer, each.stream) for each in lens.readings),
        first=first,
        texts={i: compact(lens.text(i)) for i in lens.top_ids.unique().tolist()},
        top_ids=lens.top_ids.numpy(),
        top_probabilities=lens.top_probabilities.numpy(),
        probability=lens.probability.numpy(),
        rank=rank.numpy(),
        entropy=lens.entropy.numpy(),
        kl=lens.kl.numpy(),
        n_vocabulary=subject.readout.n_vocabulary,
        outliers=tuple((each.position, each.times_usual) for each in lens.outliers),
        missing=lens.missing,
        baseline=lens.baseline,
    )


def reading_name(layer: int, stream: str) -> str:
    """The name of a row, such as ``L3 MLP``."""
    words = _STREAMS.get(stream, stream)
    return words if stream == "resid_pre" and layer == 0 else f"L{layer} {words}"


def reading_words(layer: int, stream: str) -> str:
    """A row in a sentence, such as ``the stream after the MLP of layer 3``."""
    words = _LONG.get(stream, stream)
    return words if stream == "resid_pre" and layer == 0 else f"{words} of layer {layer}"


@dataclass(frozen=True)
class Coloring:
    """One way to colour the cells.

    Attributes:
        words: its name on the page; ``low`` and ``high``: labels of the ends of its scale.
        shares: computes (S, T) values from 0 to 1 for a table.
    """

    words: str
    low: Callable[[LensTable], str]
    high: Callable[[LensTable], str]
    shares: Callable[[LensTable], NDArray[np.floating]]
    help: str


def _most(values: NDArray[np.floating]) -> float:
    """The end of the colour scale, which one cell in fifty exceeds."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, 0.98)) if known.size else 1.0


def _of_most(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return values / (_most(values) or 1.0)


def _rank_shares(table: LensTable) -> NDArray[np.floating]:
    """The first rank has the full colour, the last rank none, on a logarithmic scale."""
    return 1 - np.log(np.maximum(table.rank, 1)) / np.log(max(2, table.n_vocabulary))


COLORINGS = {
    "probability": Coloring(
        "Top token's probability",
        lambda _: "0 %",
        lambda _: "100 %",
        lambda table: table.top_probabilities[:, :, 0],
        "How sure the reading is of the token in the cell.",
    ),
    "next": Coloring(
        "Next token's probability",
        lambda _: "0 %",
        lambda _: "100 %",
        lambda table: table.probability,
        "The probability that the reading gives the next token of the prompt. The last token has "
        "none.",
    ),
    "rank": Coloring(
        "Next token's rank",
        lambda table: f"{table.n_vocabulary:,}",
        lambda _: "1",
        _rank_shares,
        "The rank of the prompt's next token among all tokens, on a logarithmic scale. The last "
        "token has none.",
    ),
    "kl": Coloring(
        "KL(final ‖ lens)",
        lambda _: "0 nats",
        lambda table: f"≥ {number(_most(table.kl))} nats",
        lambda table: _of_most(table.kl),
        "How far the reading is from what the model predicts in the end: KL(final ‖ lens).",
    ),
    "entropy": Coloring(
        "Entropy",
        lambda _: "0 nats",
        lambda table: f"≥ {number(_most(table.entropy))} nats",
        lambda table: _of_most(table.entropy),
        "The entropy of the reading: 0 if it is sure of one token.",
    ),
}


def row_of(table: LensTable, reading: int) -> int:
    """The row of a reading: the last layer is on top."""
    return len(table.readings) - 1 - reading


def outlier_words(table: LensTable, tokens: Sequence[str]) -> str:
    """The tokens whose stream is many times as long as usual, in a sentence; "" for none.

    Args:
        tokens: texts of all tokens of the prompt.
    """
    told = [
        f"token {position + 1:,} ‘{tokens[position]}’"
        + (" (not finite)" if times is None else f" ({times:,.0f} times)")
        for position, times in table.outliers[:_MOST_OUTLIERS]
    ]
    if not told:
        return ""
    n_more = len(table.outliers) - len(told)
    more = f" and {n_more:,} more" if n_more else ""
    return f"The stream's norm is many times the usual one at {', '.join(told)}{more}."


def baseline_words(table: LensTable) -> str:
    """The baseline for the readings' KL, in a sentence; "" if that is not known."""
    if table.baseline is None:
        return ""
    return (
        "For comparison: the best guess that is the same after every token has a "
        f"KL(final ‖ guess) of {number(table.baseline, '.2f')} nats on average."
    )


def lens_grid(
    table: LensTable, tokens: Sequence[str], color: str, reading: int | None, position: int
) -> CellGrid:
    """The cells of a lens, the last layer on top.

    Args:
        tokens: (T,) texts of the prompt's tokens that the table has.
        color: a name in :data:`COLORINGS`.
        reading, position: row and position of the chosen cell.
    """
    shares = COLORINGS[color].shares(table)
    cells = [
        [
            Cell(_short(table, s, t), fill, _tip(table, s, t, tokens[t]))
            for t, fill in enumerate(tints(shares[s]))
        ]
        for s in range(len(table.readings))
    ]
    at = position - table.first
    is_shown = 0 <= at < table.n_tokens
    chosen = None if reading is None else row_of(table, reading)
    return CellGrid(
        rows=[reading_name(*each) for each in reversed(table.readings)],
        columns=list(tokens),
        cells=cells[::-1],
        selected=(chosen, at) if is_shown else (None, None),
        label="What each layer expects after each token",
    )


def _short(table: LensTable, s: int, t: int) -> str:
    return table.texts[int(table.top_ids[s, t, 0])]


def _tip(table: LensTable, s: int, t: int, token: str) -> str:
    position = table.first + t
    lines = [f"{reading_name(*table.readings[s])}, after token {position + 1} ‘{token}’"]
    lines += [f"{text}\t{number(share, '.1%')}" for _, text, share in table.top(s, position)]
    if np.isfinite(table.probability[s, t]):
        rank = int(table.rank[s, t])
        lines.append(f"the token that comes\t{number(float(table.probability[s, t]), '.1%')}")
        lines.append(f"its rank\t{rank:,}")
    lines.append(f"entropy\t{number(float(table.entropy[s, t]), '.2f')} nats")
    lines.append(f"KL(final ‖ lens)\t{number(float(table.kl[s, t]), '.2f')} nats")
    return "\n".join(lines)
