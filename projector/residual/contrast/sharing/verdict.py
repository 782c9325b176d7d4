"""Whether successive layers share directions: the rule, and the result in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from projector.residual.contrast.sharing.records import Measured, SharingRow, Verdict

__all__ = ["LITTLE", "MUCH", "describe", "judge"]

# Of 1, which identical directions give, with random ones at 0.
LITTLE, MUCH = 0.1, 0.5


def judge(cosine: Measured | None, captured: Measured | None) -> Verdict | None:
    """Judge two figures of the updates, each on a scale from 0 (random) to 1 (same).

    ``cosine`` shows whether successive updates have the same or the opposite direction, sample by
    sample; ``captured`` shows whether they vary in the same directions, regardless of sign. A
    figure within the central 90 % of random rotations counts as 0, and so does a lower
    ``captured``.

    - "shared": one of them is 0.5 or more.
    - "not shared": both are less than 0.1.
    - "in part": all between.

    The output weights don't count here: they show where a layer could write most, not where it
    writes on these texts.
    """
    sizes = []
    if cosine is not None:
        sizes.append(0.0 if cosine.is_random else abs(cosine.beyond_random))
    if captured is not None:
        sizes.append(0.0 if captured.is_random else captured.beyond_random)
    if not sizes:
        return None
    if max(sizes) >= MUCH:
        return "shared"
    return "not shared" if max(sizes) < LITTLE else "in part"


_VERDICTS: dict[Verdict, str] = {
    "shared": "Successive layers share their directions",
    "in part": "Successive layers share their directions in part",
    "not shared": "Successive layers do not share their directions",
}
_WAYS = (("attention", "attention_weights"), ("the MLP", "mlp_weights"))


def describe(
    verdict: Verdict | None, rows: Sequence[SharingRow], means: Mapping[str, Measured | None]
) -> str:
    """Describe the result in a few sentences.

    Args:
        means: means of the rows, by the name of the figure.
    """
    if verdict is None:
        text = (
            "Whether successive layers share their directions can't be determined: this needs "
            "two layers whose updates differ from sample to sample."
        )
    else:
        facts = [*_captured(means["captured"], rows), *_cosine(means["cosine"])]
        text = f"{_VERDICTS[verdict]}: {', and '.join(facts)}.{_spread(rows)}"
    weights = [
        f"{_number(each.value)} for {name} (random: {_number(each.random_median)})"
        for name, field in _WAYS
        if (each := means[field]) is not None
    ]
    if weights:
        text += (
            " The top output directions of consecutive layers’ weights overlap by "
            f"{' and '.join(weights)}, where 1 is the same span."
        )
    return text


def _captured(found: Measured | None, rows: Sequence[SharingRow]) -> list[str]:
    if found is None:
        return []
    k = max(row.n_directions or 0 for row in rows)
    top = "top direction holds" if k == 1 else f"top {k} directions hold"
    return [
        f"an update’s {top} {_percent(found.value)} of the variance that the next update’s own "
        f"hold (random directions: {_percent(found.random_median)})"
    ]


def _cosine(found: Measured | None) -> list[str]:
    if found is None:
        return []
    # As many decimals as the band needs to be seen.
    places = 2 if max(abs(found.random_low), abs(found.random_high)) >= 0.005 else 3
    low, value, high = (
        _number(each, places) for each in (found.random_low, found.value, found.random_high)
    )
    return [f"the cosine of successive updates is {value} on average (random: {low} to {high})"]


def _spread(rows: Sequence[SharingRow]) -> str:
    """In how many pairs of layers what is shared is much, and in how many it is little."""
    verdicts = [each for row in rows if (each := judge(row.cosine, row.captured)) is not None]
    if len(verdicts) < 2:
        return ""
    much, little = verdicts.count("shared"), verdicts.count("not shared")
    return (
        f" Individually, {much or 'none'} of {len(verdicts)} pairs of layers "
        f"{'shares its' if much == 1 else 'share their'} directions, "
        f"{_do(len(verdicts) - much - little)} in part and {_do(little)} not."
    )


def _do(n: int) -> str:
    return f"{n or 'none'} {'does' if n == 1 else 'do'}"


def _percent(share: float) -> str:
    return f"{_number(100 * share, 0)} %"


def _number(value: float, places: int = 2) -> str:
    text = f"{value:.{places}f}"
    return (text if any(digit in text for digit in "123456789") else text.lstrip("-")).replace(
        "-", "−"
    )
