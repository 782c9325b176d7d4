"""What a lens says, in words that the terminal, reports and pages share."""

from __future__ import annotations

from projector.corpus.pieces import readable
from projector.residual.readings.records import Lens, Reading


def reading_words(reading: Reading) -> str:
    """Where a reading is: ``layer 3 after its attention``."""
    if reading.stream == "resid_pre":
        return (
            "the embedding" if not reading.layer else f"layer {reading.layer} before its attention"
        )
    place = " after its attention" if reading.stream == "resid_mid" else ""
    return f"layer {reading.layer}{place}"


def settled_words(lens: Lens, place: int = -1) -> str:
    """At which layer the model's own top token becomes the lens' top token; one sentence.

    Args:
        place: among the lens' positions.
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
    """Which tokens have outlying norms, and whether averages count them; "" where none have."""
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
    """What the averages of KL are to be compared with; "" where that is not known."""
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
