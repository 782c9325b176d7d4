"""Sentences about a change of basis, shared by offline pages and the dashboard."""

from __future__ import annotations

from collections.abc import Sequence

from projector.residual.basis.records import SkipView


def sum_words(view: SkipView) -> str:
    """Describe the cosine of the two terms of a skip connection, and the error of their sum."""
    words = []
    if view.cosine is not None:
        cosine = f"{view.cosine:.2f}".replace("-", "−")
        words.append(f"The cosine of x and the added vector is {cosine}.")
    if view.closure_error == 0:
        words.append("x plus the attention output is the model's next stream exactly.")
    elif view.closure_error is not None:
        words.append(
            "x plus the attention output differs from the model's next stream by "
            f"{small(view.closure_error)} of its length."
        )
    return " ".join(words)


def percent(share: float | None) -> str:
    """A share as text, such as "12 %" or "1.2 %"; a dash for None."""
    if share is None:
        return "–"
    return f"{100 * share:{'.0f' if share >= 0.0995 else '.2g'}}\u00a0%".replace("-", "−")


def small(error: float) -> str:
    """A relative error, such as "4e−08"; "0" for none."""
    return f"{error:.0e}".replace("-", "−") if error else "0"


def mean(values: Sequence[float]) -> float | None:
    """The mean; None for an empty sequence."""
    return sum(values) / len(values) if values else None


def upper(text: str) -> str:
    """Capitalise the first letter."""
    return text[:1].upper() + text[1:]
