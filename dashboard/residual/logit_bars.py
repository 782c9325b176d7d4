"""Contributions of parts to a logit as signed bars, and their sum in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dashboard.drawing.grids import Bar
from dashboard.drawing.text import number, numbers
from dashboard.residual.lens_cells import reading_words
from projector.naming.words import compact
from projector.residual.logits.records import ROUNDING, AttributedPart, Attribution

N_SHOWN = 14
# The bar for all parts without their own bar.
REST = "all others"


@dataclass(frozen=True)
class PartBar:
    """A bar and its part; None for :data:`REST`."""

    bar: Bar
    part: AttributedPart | None


def part_bars_of(
    parts: Sequence[AttributedPart],
    *,
    is_chosen: Callable[[AttributedPart], bool] = lambda part: False,
    can_pick: Callable[[AttributedPart], bool] = lambda part: False,
    n_shown: int = N_SHOWN,
) -> list[PartBar]:
    """The largest parts, the most positive first, and the sum of the rest last.

    Args:
        is_chosen: whether a part is selected; a selected part is shown even if it is small.
        can_pick: whether a click on its bar can select it.
    """
    # Sums of other parts, such as all other neurons, join the rest.
    named = [part for part in parts if not part.kind.startswith("other ")]
    by_size = sorted(named, key=lambda part: -abs(part.value))
    shown = by_size[:n_shown] + [part for part in by_size[n_shown:] if is_chosen(part)]
    shown.sort(key=lambda part: -part.value)
    n_others = len(parts) - len(shown)
    others = sum(part.value for part in parts) - sum(part.value for part in shown)
    values = [part.value for part in shown] + ([others] if n_others else [])
    most = max((abs(value) for value in values), default=0.0) or 1.0
    words = numbers(values)
    found = [
        PartBar(
            Bar(
                part.name,
                part.value / most,
                words[k],
                _tip(part, words[k]),
                can_pick(part),
                is_chosen(part),
                _control(part, most),
            ),
            part,
        )
        for k, part in enumerate(shown)
    ]
    if n_others:
        is_counted = len(named) == len(parts)
        name = f"{n_others:,} others" if is_counted else REST
        found.append(PartBar(Bar(name, others / most, words[-1], "together"), None))
    return found


def _tip(part: AttributedPart, value: str) -> str:
    text = f"{part.name} adds {value} to the logit"
    if part.control_mean is not None and part.control_sd is not None:
        text += (
            "; to other tokens drawn from the vocabulary it adds "
            f"{number(part.control_mean, '+.2g')} ± {number(part.control_sd, '.2g')}"
        )
    return text


def _control(part: AttributedPart, most: float) -> tuple[float, ...]:
    """Mean ± standard deviation of its contributions to other tokens, relative to ``most``."""
    if part.control_mean is None or part.control_sd is None:
        return ()
    ends = (part.control_mean - part.control_sd, part.control_mean + part.control_sd)
    return tuple(max(-1.0, min(1.0, end / most)) for end in ends)


def attributed_words(found: Attribution) -> str:
    """The attributed logit, such as ``the model's logit of ‘ self’``; texts are not escaped."""
    first = f"‘{compact(found.token_text)}’"
    words = f"the logit of {first}" if found.until else f"the model's logit of {first}"
    if found.against_text is not None:
        words += f" less that of ‘{compact(found.against_text)}’"
    return f"{words}, read from {reading_words(*found.until)}" if found.until else words


def control_words(found: Attribution) -> str:
    """The meaning of the grey bands; "" if there are none."""
    if not any(part.control_mean is not None for part in found.parts):
        return ""
    others = "tokens" if found.against is None else "pairs of tokens"
    return (
        f"Grey bands: what the part adds to {found.n_controls:,} other {others} drawn from the "
        "vocabulary, mean ± standard deviation. A bar that ends within its band isn't specific to "
        "this token."
    )


# Explains the two errors below the bars.
ERRORS_HELP = (
    "The closure error is the difference between the parts' sum and the logit, divided by the sum "
    "of the parts' sizes. The additivity error is the difference between the sum of all that is "
    "added to the stream and the stream itself, divided by its length. When an error exceeds its "
    "bound, nothing is attributed."
)


def sum_words(found: Attribution) -> str:
    """How closely the parts sum to the attributed logit."""
    n_parts = len(found.parts)
    rounded = ""
    if any(part.kind == ROUNDING for part in found.parts):
        rounded = (
            " Both errors exclude the rounding of half precision, which is a part of its own: "
            f"{number(found.rounding, '+.4f')}, {found.rounding_share:.1%} of the sizes' sum."
        )
    return (
        f"{n_parts:,} parts add up to {number(sum(part.value for part in found.parts), '+.4f')}; "
        f"{'the lens reads' if found.until else 'the model gives'} "
        f"{number(found.logit, '+.4f')}. Closure error {_error(found.closure_error)}, additivity "
        f"error {_error(found.additivity_error)}.{rounded}"
    )


def _error(value: float) -> str:
    return number(value, ".1e") if value else "0"
