"""The results in figures of two sets, in sentences made from the drawn numbers."""

from __future__ import annotations

from collections.abc import Sequence

from projector.figures.contrast.growth import blocks_of
from projector.figures.contrast.series import (
    Facts,
    ModelRows,
    Place,
    cosine_form,
    entries_of,
    known,
    number_of,
)
from projector.residual.contrast.words import growth_sentence
from projector.residual.flow.words import number

HOW_PANELS = (
    "The cosine compares the mean vectors of the two sets. Its band is as wide as the interval "
    "that holds 95 % of bootstrap draws of the prompts: it shows how much the cosine varies at "
    "this number of prompts, and does not correct a bias. It has two controls: the cosine of "
    "random halves of one set, for both sets together, and the cosine of two groups after the "
    "labels were permuted; their bands hold 90 % of the draws. Prompts that belong together "
    "stay together in every draw. A half has fewer prompts than its set, and so more noise: "
    "compare two halves of one set with a half of one set and a half of the other. Variances "
    "are over the samples of a set: the figures show their mean over the features, and their "
    "maximum, which usually exceeds the true maximum. The embedding is drawn separately, as a "
    "diamond; open circles are after a layer’s attention, filled circles after its MLP."
)
HOW_GROWTH = (
    "A block adds an update to the stream, so that Var(post) = Var(pre) + Var(update) + 2 "
    "Cov(pre, update). The bars show these three terms as shares of Var(post), averaged over "
    "both sets; they sum to 1. If layers shared directions, the covariance would carry the "
    "growth. The last panel shows the correlation of the stream and the update, Cov(pre, "
    "update) / √(Var(pre) Var(update)); its band holds 95 % of the correlations of randomly "
    "rotated updates."
)
HOW_SHARING = (
    "Each layer’s update is compared with the update of the layer before it: the cosine of a "
    "sample’s two updates; the principal angles between the spans of their top directions, how "
    "much these spans overlap, and how much of the other’s variance each captures; and the "
    "overlap of the top singular directions of their output weights. Dashed and dotted lines "
    "are the medians of random rotations, and bands hold 90 % of them; for angles, only the "
    "medians are drawn."
)
HOW_UNTANGLING = (
    "Solid curves are measurements, dashed curves their controls. The cosine of two samples is "
    "the mean over pairs of different prompts. The linear probe is scored on prompts that it "
    "was not fitted on. It shows that the sets can be distinguished, but not by what: if one "
    "earlier word marks a set, attention to that word is enough. Its controls are the same "
    "probe with permuted labels, whose band reaches the value that 5 % of the draws exceed, and "
    "the probe of the embedding alone. The effective dimension is the participation ratio of a "
    "set’s covariance; its control is that of as many samples of an isotropic Gaussian. The "
    "last panel shows how much of the sets’ difference lies along one direction."
)


def cosine_words(model: ModelRows) -> str:
    """Describe the cosine of the sets' means over the layers, compared with controls."""
    inside = _inside(model)
    cosines = [(p, v) for p, row in inside if (v := number_of(row, "cosine")) is not None]
    if not cosines:
        return "The cosine of the sets’ means could not be computed at any layer."
    form = cosine_form([model])
    (first, start), (last, end) = cosines[0], cosines[-1]
    lowest, least = min(cosines, key=lambda each: each[1])
    text = (
        f"The cosine of the two sets’ means goes from {number(start, form)} {first.words} to "
        f"{number(end, form)} {last.words}"
    )
    if least < min(start, end) - 0.02:
        text += f", with its lowest value, {number(least, form)}, {lowest.words}"
    parts = [f"{text}.", _embedding_words(model, form)]
    for name, words in (
        ("cosine_split_half", "Between random halves of one set"),
        ("cosine_across_halves", "Between a half of one set and a half of the other"),
        ("cosine_permuted", "With permuted labels"),
    ):
        values = known(number_of(row, name) for _, row in inside)
        if values:
            parts.append(f"{words} it {_range_words(values, form)}.")
    parts.append(_parting_words(inside))
    return " ".join(part.strip() for part in parts if part.strip())


def _range_words(values: Sequence[float], form: str) -> str:
    low, high = number(min(values), form), number(max(values), form)
    return f"is {low} throughout" if low == high else f"stays between {low} and {high}"


def _embedding_words(model: ModelRows, form: str) -> str:
    place, row = model.places[0], model.rows[0]
    value = number_of(row, "cosine") if place.is_embedding else None
    if value is None:
        return ""
    return f"At the embedding, which is drawn separately, it is {number(value, form)}."


def _parting_words(inside: Sequence[tuple[Place, Facts]]) -> str:
    """At how many places the cosine is below what permuted labels give."""
    compared = []
    for place, row in inside:
        high, null = number_of(row, "cosine_high"), number_of(row, "cosine_permuted_low")
        null = number_of(row, "cosine_permuted") if null is None else null
        if high is not None and null is not None:
            compared.append((place, high < null))
    if not compared:
        return ""
    below = [place for place, is_below in compared if is_below]
    if not below:
        return (
            "Its interval is nowhere entirely below the values with permuted labels: the sets do "
            "not separate by more than chance."
        )
    if len(below) == len(compared):
        return "Its interval is entirely below the values with permuted labels at every place."
    return (
        f"At {len(below)} of {len(compared)} places, first {below[0].words}, its whole interval is "
        "below what permuted labels give."
    )


def variance_words(model: ModelRows, names: tuple[str, str]) -> str:
    """Describe how many times variance grows, and where there is no variance."""
    inside, parts = _inside(model), []
    for what, title in (("mean", "mean"), ("max", "maximum")):
        columns = [f"variance_{what}_{side}" for side in ("positive", "negative")]
        known_at = [
            (place, (a, b))
            for place, row in inside
            if (a := number_of(row, columns[0])) is not None
            and (b := number_of(row, columns[1])) is not None
        ]
        # A factor takes a start above 0.
        starts = [k for k, (_, values) in enumerate(known_at) if min(values) > 0]
        if not starts or starts[0] == len(known_at) - 1:
            continue
        (start, of_start), (end, of_end) = known_at[starts[0]], known_at[-1]
        text = f"From {_place(start)} to {_place(end)}, the {title} variance "
        text += _growth_words(of_start, of_end, names)
        # The first block alone may bring most of it.
        later = [k for k in starts[1:] if known_at[k][0].stream != "resid_mid"]
        if start.layer == 0 and later and later[0] < len(known_at) - 1:
            after, of_after = known_at[later[0]]
            text += f"; from {_place(after)} to {_place(end)}, it "
            text += _growth_words(of_after, of_end, names)
        parts.append(f"{text}.")
    for side, name in zip(("positive", "negative"), names, strict=True):
        first = number_of(model.rows[0], f"variance_mean_{side}")
        if model.places[0].is_embedding and first == 0:
            parts.append(
                f"All prompts of {name} have the same vector at the embedding: its variance is 0 "
                "there, which a logarithmic axis can’t show."
            )
    return " ".join(parts)


def growth_words(facts: Facts, model: ModelRows) -> str:
    """Describe the parts of the growth of variance, averaged over blocks, compared with rotated
    updates.
    """
    blocks = [row for row in blocks_of(model) if number_of(row, "growth_pre") is not None]
    if not blocks:
        return "The parts of the variance are not known for any block."
    # The first block's update outweighs what was there before it: it would carry every mean.
    first, later = blocks[0], blocks[1:]
    text = f"Of the variance after layer {first['layer']}, {_shares_words([first])}."
    if later:
        over = "after the next layer" if len(later) == 1 else f"after the {len(later)} layers that "
        over += "" if len(later) == 1 else "follow, on average"
        text += f" Of the variance {over}, {_shares_words(later)}."
    steps = entries_of(facts, "growth", model.model)
    compared = [
        (covariance, rotated)
        for each in steps
        if (covariance := number_of(each, "covariance")) is not None
        and (rotated := number_of(each, "covariance_rotated")) is not None
    ]
    if compared:
        n_above = sum(value > rotated for value, rotated in compared)
        n_below = sum(value < -rotated for value, rotated in compared)
        text += (
            " The covariance is above the values for randomly rotated updates in "
            f"{n_above or 'none'} of {len(compared)} steps, and below it in {n_below or 'none'}."
        )
    carried = growth_sentence(steps)
    return f"{text} {carried}".rstrip()


def _shares_words(blocks: Sequence[Facts]) -> str:
    """The shares of the variance behind blocks, averaged."""
    pre, update, both = (
        f"{number(100 * sum(values) / len(values), '.0f')} %"
        for part in ("pre", "update", "covariance")
        if (values := known(number_of(row, f"growth_{part}") for row in blocks))
    )
    return f"{pre} was there before, {update} belongs to the update, and {both} is their covariance"


def untangling_words(model: ModelRows | None) -> str:
    """Describe the probe's accuracy, and the similarity of samples at the start and at the end;
    nothing if nothing was measured.
    """
    if model is None:
        return ""
    parts = []
    inside = _inside(model)
    scored = [(p, v) for p, row in inside if (v := number_of(row, "probe_accuracy")) is not None]
    if scored:
        place, best = max(scored, key=lambda each: each[1])
        nulls = known(number_of(row, "probe_permuted") for _, row in inside)
        text = f"The probe’s highest accuracy is {_percent(best)}, {place.words}"
        if nulls:
            text += f"; with permuted labels its accuracy is {_percent(sum(nulls) / len(nulls))}"
        embedding = number_of(model.rows[0], "probe_accuracy")
        if model.places[0].is_embedding and embedding is not None:
            text += f", and on the embedding alone {_percent(embedding)}"
        parts.append(f"{text}.")
    for name, words in (
        ("within_cosine_positive", "The mean cosine of two samples of the first set"),
        ("within_cosine_negative", "The mean cosine of the second set’s samples"),
    ):
        values = known(number_of(row, name) for _, row in inside)
        if values:
            parts.append(f"{words} goes from {number(values[0])} to {number(values[-1])}.")
    shares = known(number_of(row, "one_direction") for _, row in inside)
    nulls = known(number_of(row, "one_direction_permuted") for _, row in inside)
    if shares and nulls:
        share, null = (_percent(sum(each) / len(each)) for each in (shares, nulls))
        parts.append(
            f"One direction holds {share} of the sets’ difference on average over the places; with "
            f"permuted labels it is {null}."
        )
    return " ".join(parts)


def _place(place: Place) -> str:
    """What has written last to the stream there."""
    return place.words.removeprefix("after ")


def _growth_words(
    start: tuple[float, float], end: tuple[float, float], names: tuple[str, str]
) -> str:
    """By which factor a figure of both sets grows; its start is above 0."""
    ratios = [b / a for a, b in zip(start, end, strict=True)]
    times = [number(r, ",.0f" if r >= 99.5 else ".2g" if r < 10 else ".0f") for r in ratios]
    if min(ratios) >= 1 and len(set(times)) == 1:
        return f"grows {times[0]}-fold for both sets"
    if min(ratios) >= 1:
        each = (f"{t}-fold for {name}" for t, name in zip(times, names, strict=True))
        return f"grows {' and '.join(each)}"
    each = (f"by {t} for {name}" for t, name in zip(times, names, strict=True))
    return f"is multiplied {' and '.join(each)}"


def _percent(share: float) -> str:
    # 99.8 % is not all.
    form = ".1f" if 0.99 <= share < 1 else ".0f"
    return f"{number(100 * share, form)} %"


def _inside(model: ModelRows) -> list[tuple[Place, Facts]]:
    """All places but the embedding."""
    pairs = zip(model.places, model.rows, strict=True)
    return [(place, row) for place, row in pairs if not place.is_embedding]
