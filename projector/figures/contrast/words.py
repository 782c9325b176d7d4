"""What figures of two sets show, in sentences: made of the numbers that are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from projector.figures.contrast.growth import blocks_of
from projector.figures.contrast.series import (
    Facts,
    ModelRows,
    Place,
    entries_of,
    known,
    number_of,
)
from projector.residual.contrast.words import growth_sentence
from projector.residual.flow.words import number

HOW_PANELS = (
    "The cosine is that of the mean vectors of the two sets. Its band is as wide as what holds "
    "95 % of bootstrap draws of the prompts: it tells how far the figure varies at this number of "
    "prompts, and does not correct a bias. Two controls stand beside it: the cosine of random "
    "halves of one set, for both sets together, and that of two groups after the labels were "
    "permuted; their bands hold 90 % of the draws. Prompts that belong together stay together in "
    "every draw. A half has fewer prompts and so more noise than its set: what compares with two "
    "halves of one set is a half of one set against a half of the other. Variances are over the "
    "samples of a set: their mean over the features, and their maximum, which is as a rule above "
    "the true one. The embedding is drawn apart, as a diamond; open circles are after a layer’s "
    "attention, filled ones after its MLP."
)
HOW_GROWTH = (
    "A block adds an update to the stream, so that Var(post) = Var(pre) + Var(update) + "
    "2 Cov(pre, update). The bars are these three as shares of Var(post), the mean of both sets; "
    "they sum to 1. If layers shared directions, the covariance would carry the growth. The "
    "correlation of the stream and the update, Cov(pre, update) / √(Var(pre) Var(update)), stands "
    "beside the band that holds 95 % of those of randomly rotated updates."
)
HOW_SHARING = (
    "What each layer adds is compared with what the layer before it adds: the cosine of a "
    "sample’s two updates; the principal angles between the spans of their top directions, how far "
    "these spans overlap, and how much variance one captures of the other; and the overlap of the "
    "top singular directions of their output weights. Dashed lines are the medians of random "
    "rotations, and bands hold 90 % of them."
)
HOW_UNTANGLING = (
    "Solid curves are what was measured, dashed ones their controls. The cosine of two samples is "
    "the mean over pairs of different prompts. The linear probe is scored on prompts that it was "
    "not fitted on. It tells that the sets are distinguished, and not by what: if one earlier word "
    "marks a set, attention to that word is enough. Beside it are the same probe with permuted "
    "labels, whose band reaches to what 5 % of the draws exceed, and the probe of the embedding "
    "alone. The effective dimension is the "
    "participation ratio of a set’s covariance, beside that of as many samples of an isotropic "
    "Gaussian. The last panel shows how much of the sets’ difference lies along one direction."
)


def cosine_words(model: ModelRows) -> str:
    """How the cosine of the sets' means goes, and whether controls go with it."""
    inside = _inside(model)
    cosines = [(place, value) for place, row in inside if (value := number_of(row, "cosine"))]
    if not cosines:
        return "The cosine of the sets’ means is not known at any layer."
    (first, start), (last, end) = cosines[0], cosines[-1]
    lowest, least = min(cosines, key=lambda each: each[1])
    text = (
        f"The cosine of the two sets’ means goes from {number(start)} {first.words} to "
        f"{number(end)} {last.words}"
    )
    if least < min(start, end) - 0.02:
        text += f", with its lowest value, {number(least)}, {lowest.words}"
    parts = [text + ". " + _embedding_words(model)]
    for name, words in (
        ("cosine_split_half", "random halves of one set"),
        ("cosine_across_halves", "a half of one set and a half of the other"),
        ("cosine_permuted", "permuted labels"),
    ):
        values = known(number_of(row, name) for _, row in inside)
        if values:
            parts.append(f"The cosine of {words} {_range_words(values)}.")
    parts.append(_parting_words(inside))
    return " ".join(part.strip() for part in parts if part.strip())


def _range_words(values: Sequence[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return f"is {low} throughout" if low == high else f"stays between {low} and {high}"


def _embedding_words(model: ModelRows) -> str:
    place, row = model.places[0], model.rows[0]
    value = number_of(row, "cosine") if place.is_embedding else None
    return (
        "" if value is None else f"At the embedding, which is drawn apart, it is {number(value)}."
    )


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
            "Nowhere is its whole interval below what permuted labels give: the sets do not part "
            "by more than chance."
        )
    if len(below) == len(compared):
        return "At every place its whole interval is below what permuted labels give."
    return (
        f"At {len(below)} of {len(compared)} places, first {below[0].words}, its whole interval is "
        "below what permuted labels give."
    )


def variance_words(model: ModelRows, names: tuple[str, str]) -> str:
    """How many times variance grows, and where there is none."""
    inside, parts = _inside(model), []
    for what in ("mean", "max"):
        grown = []
        for side, name in zip(("positive", "negative"), names, strict=True):
            column = f"variance_{what}_{side}"
            values = [v for _, row in inside if (v := number_of(row, column))]
            if len(values) > 1:
                grown.append((values[-1] / values[0], name))
        if grown:
            title = "mean" if what == "mean" else "maximum"
            times = [f"{_times(ratio)} times for {name}" for ratio, name in grown]
            parts.append(
                f"The {title} variance {inside[-1][0].words} is that {inside[0][0].words} "
                f"{' and '.join(times)}."
            )
    for side, name in zip(("positive", "negative"), names, strict=True):
        first = number_of(model.rows[0], f"variance_mean_{side}")
        if model.places[0].is_embedding and first == 0:
            parts.append(
                f"All prompts of {name} have the same vector at the embedding: its variance is 0 "
                "there, for which a logarithmic axis has no place."
            )
    return " ".join(parts)


def growth_words(facts: Facts, model: ModelRows) -> str:
    """What the growth of variance is made of, averaged over blocks, beside rotated updates."""
    blocks = [row for row in blocks_of(model) if number_of(row, "growth_pre") is not None]
    if not blocks:
        return "What the variance is made of is not known of any block."
    shares = [
        sum(known(number_of(row, f"growth_{part}") for row in blocks)) / len(blocks)
        for part in ("pre", "update", "covariance")
    ]
    of_blocks = "the one block" if len(blocks) == 1 else f"the {len(blocks)} blocks"
    pre, update, both = (f"{number(100 * share, '.0f')} %" for share in shares)
    text = (
        f"On average over {of_blocks}, {pre} of the variance after a block was there before it, "
        f"{update} is the update’s own, and {both} is their covariance."
    )
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
            f" The covariance is above what randomly rotated updates give in {n_above} of "
            f"{len(compared)} steps, and below it in {n_below}."
        )
    carried = growth_sentence(steps)
    return f"{text} {carried}".rstrip()


def untangling_words(model: ModelRows | None) -> str:
    """How well a probe does, and how the samples lie at the start and at the end; nothing where
    nothing was measured."""
    if model is None:
        return ""
    parts = []
    inside = _inside(model)
    scored = [(p, v) for p, row in inside if (v := number_of(row, "probe_accuracy")) is not None]
    if scored:
        place, best = max(scored, key=lambda each: each[1])
        nulls = known(number_of(row, "probe_permuted") for _, row in inside)
        text = f"The probe is right on {_percent(best)} at best, {place.words}"
        if nulls:
            text += f"; with permuted labels it is right on {_percent(sum(nulls) / len(nulls))}"
        embedding = number_of(model.rows[0], "probe_accuracy")
        if model.places[0].is_embedding and embedding is not None:
            text += f", and on the embedding alone on {_percent(embedding)}"
        parts.append(f"{text}.")
    for name, words in (
        ("within_cosine_positive", "The mean cosine of two samples of the first set"),
        ("within_cosine_negative", "That of the second set"),
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


def how_effects(effects: Sequence[Facts]) -> str:
    """How to read the figure of effects, by what was measured."""
    rise = (
        "a rise of the log-perplexity means that the model predicts the text less well"
        if all(each.get("continuation") is None for each in effects)
        else "the effect is on the log-probability of the continuation, all its tokens together, "
        "and a rise means that the model finds it more likely"
    )
    return (
        "The difference of the sets’ means is added to the stream, taken away from it, and "
        "projected out of it, at every position. Dots are the change that this makes on prompts "
        f"that the direction was not computed from; {rise}. Intervals are over groups of prompts. "
        "Crosses are random directions of the same norm: the stream varies along few directions, "
        "and a random one lies almost wholly outside of them, so it can do little where it is "
        "projected out. Rings are directions of the same norm along which prompts of one set "
        "vary: the difference of means under permuted labels, each set’s mean removed."
    )


def effects_words(effects: Sequence[Facts]) -> str:
    """How many changes do more than every random direction, and than those of permuted labels."""
    told = [each for each in effects if isinstance(each.get("exceeds_random"), bool)]
    if not told:
        return "No effect was measured beside random directions."
    n_more, by_chance = _larger(told, "random")
    if not n_more:
        first = (
            f"None of the {len(told)} effects is larger than that of every random direction of the "
            "same norm: this direction does no more than any other."
        )
    else:
        first = (
            f"Of {len(told)} effects, {n_more} {'is' if n_more == 1 else 'are'} larger than that "
            "of every random direction of the same norm; one more random direction would give "
            f"about {by_chance}."
        )
    beside = [each for each in told if isinstance(each.get("exceeds_permuted"), bool)]
    if not beside:
        return first
    n_more, by_chance = _larger(beside, "permuted")
    how_many = f"{n_more}" if n_more else "None"
    return (
        f"{first} {how_many} of {len(beside)} {'is' if n_more < 2 else 'are'} larger than that of "
        "every direction of permuted labels, which lie where prompts vary; one more of these would "
        f"give about {by_chance}."
    )


def _larger(effects: Sequence[Facts], control: str) -> tuple[int, str]:
    """How many effects are larger than those of a control, and how many would be by chance."""
    # By chance, each of k + 1 equal directions is as likely to have the largest effect.
    by_chance = sum(1 / (len(each.get(control) or ()) + 1) for each in effects)
    return sum(each[f"exceeds_{control}"] for each in effects), number(by_chance, ".0f")


def _times(ratio: float) -> str:
    return number(ratio, ",.0f" if ratio >= 99.5 else ".3g")


def _percent(share: float) -> str:
    # 99.8 % is not all.
    form = ".1f" if 0.99 <= share < 1 else ".0f"
    return f"{number(100 * share, form)} %"


def _inside(model: ModelRows) -> list[tuple[Place, Facts]]:
    """All places but the embedding."""
    pairs = zip(model.places, model.rows, strict=True)
    return [(place, row) for place, row in pairs if not place.is_embedding]
