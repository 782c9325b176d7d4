"""Whether successive layers share directions: the rule, and what it says in words."""

from __future__ import annotations

from projector.residual.contrast.sharing.records import Measured, Verdict

__all__ = ["LITTLE", "MUCH", "describe", "judge"]

# Of 1, which identical directions give, with random ones at 0.
MUCH, LITTLE = 0.5, 0.1


def judge(cosine: Measured | None, captured: Measured | None) -> Verdict | None:
    """The verdict, from two figures of the updates, each on the scale from 0 (random) to 1 (same).

    ``cosine`` tells whether successive updates point the same way, or the opposite way, sample by
    sample; ``captured`` whether they vary in the same directions, whatever their signs.

    - "shared": one of them is 0.5 or more, and random rotations give less.
    - "not shared": neither is 0.1 or more beyond what random rotations give.
    - "in part": all between.

    The output weights do not count here: they tell where a layer could write most, not where it
    writes on these texts.
    """
    given = [each for each in (cosine, captured) if each is not None]
    if not given:
        return None
    sizes = [0.0 if each.is_random else abs(each.beyond_random) for each in given]
    if max(sizes) >= MUCH:
        return "shared"
    return "not shared" if max(sizes) < LITTLE else "in part"


_VERDICTS: dict[Verdict, str] = {
    "shared": "Successive layers share their directions",
    "in part": "Successive layers share their directions in part",
    "not shared": "Successive layers do not share their directions",
}


def describe(
    verdict: Verdict | None,
    cosine: Measured | None,
    captured: Measured | None,
    attention_weights: Measured | None,
    mlp_weights: Measured | None,
    n_directions: int | None,
) -> str:
    """What was found, in one to three sentences."""
    if verdict is None:
        return (
            "Whether successive layers share their directions can't be told: this takes two layers "
            "whose updates differ from sample to sample."
        )
    facts = []
    if captured is not None:
        top = "top direction" if n_directions == 1 else f"top {n_directions} directions"
        facts.append(
            f"an update's {top} hold{'s' if n_directions == 1 else ''} "
            f"{captured.value:.0%} of the variance that the next update's own would hold "
            f"(random directions: {captured.random_median:.0%})"
        )
    if cosine is not None:
        facts.append(
            f"the cosine of successive updates is {_number(cosine.value)} on average "
            f"(random rotations: {_number(cosine.random_low)} to {_number(cosine.random_high)})"
        )
    text = f"{_VERDICTS[verdict]}: {', and '.join(facts)}."
    weights = [
        f"{_number(each.value)} for {name} (random: {_number(each.random_median)})"
        for name, each in (("attention", attention_weights), ("the MLP", mlp_weights))
        if each is not None
    ]
    if weights:
        text += (
            " The top output directions of consecutive layers' weights overlap by "
            f"{' and '.join(weights)}, where 1 is the same span."
        )
    return text


def _number(value: float) -> str:
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")
