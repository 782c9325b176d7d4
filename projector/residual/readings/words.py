"""Descriptions of lens results for the terminal, reports and pages."""

from __future__ import annotations

from projector.corpus.pieces import readable
from projector.residual.readings.records import Lens, Reading


def reading_words(reading: Reading) -> str:
    """Describe the point of a reading: ``layer 3 after its attention``."""
    if reading.stream == "resid_pre":
        return (
            "the embedding" if not reading.layer else f"layer {reading.layer} before its attention"
        )
    place = " after its attention" if reading.stream == "resid_mid" else ""
    return f"layer {reading.layer}{place}"


def settled_words(lens: Lens, place: int = -1) -> str:
    """Describe, in one sentence, from which layer on the lens's top token is the model's own.

    Args:
        place: index in the lens's positions.
    """
    position = lens.positions[place]
    text, _, share = lens.top(len(lens.readings) - 1, place)[0]
    settled = lens.settled(place)
    before, top = readable(lens.tokens[position]), readable(text)
    said = f"After ‘{before}’ the model's top token is ‘{top}’ ({percent(share)})"
    if settled == lens.readings[-1]:
        return f"{said}; before the last layer it is not the {lens.lens}' top token."
    return f"{said}; it is the {lens.lens}' top token from {reading_words(settled)} on."


def outlier_words(lens: Lens) -> str:
    """Describe the tokens with outlying norms, and whether averages include them; "" if there are
    none.
    """
    if not lens.outliers:
        return ""
    told = [
        f"‘{readable(lens.tokens[each.position])}’ at position {each.position}"
        + ("" if each.times_usual is None else f" ({each.times_usual:.0f} × the median)")
        for each in lens.outliers[:5]
    ]
    n_more = len(lens.outliers) - len(told)
    more = f" and {n_more} more" if n_more else ""
    if not lens.outliers_left_out:
        done = "Averages count tokens with outlying norms"
    elif len(lens.outliers) == len(lens.positions):
        done = "All tokens have outlying norms, so averages count them"
    else:
        done = "Averages leave out tokens with outlying norms"
    return f"{done}: {', '.join(told)}{more}."


def baseline_words(lens: Lens) -> str:
    """Describe the baseline for averages of KL; "" if it is unknown."""
    if lens.baseline is None:
        return ""
    return (
        f"For comparison: the best fixed guess, the same at every token, has KL(final ‖ guess) "
        f"of {lens.baseline:.2f} nats."
    )


def percent(share: float) -> str:
    """``31 %``; below a tenth of a percent as ``<0.1 %``."""
    if share < 0.001:
        return "<0.1 %" if share else "0 %"
    return (
        f"{share:.1%}".replace("%", " %") if share < 0.0995 else f"{share:.0%}".replace("%", " %")
    )
