"""Sentences of the layer-time viewer: its title, explanations and results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projector.corpus.pieces import readable

Report = Mapping[str, Any]

_PARTICLES = {
    "tokens": "a token's hidden state",
    "contributions": "the addition of a part of the model at a token",
    "autoencoder": "the output of one vector of an autoencoder's code in the stream",
}
# Of more frames only the number is told.
_MOST_NAMED = 4
# A token that spells no whole character: one of its bytes.
NAMELESS = "⟨byte⟩"
_MAPS = {"pca": "PCA", "umap": "UMAP", "stress": "stress layout on cosine distances"}


def title_of(report: Report) -> str:
    """The title of the viewer."""
    return f"Layer-time: {report.get('model') or 'a model'}"


def lead_of(report: Report) -> str:
    """Describe the particles and the map that placed them."""
    settings = report.get("settings", {})
    frames = report["frames"]
    n_layers = sum(frame["layer"] is not None for frame in frames)
    has_embedding = n_layers < len(frames)
    shown = f"{n_layers} layer" + ("s" if n_layers != 1 else "")
    shown = f"the embedding and {shown}" if has_embedding else shown
    particle = _PARTICLES.get(settings.get("particles", "tokens"), "a vector")
    reduction = str(settings.get("reduction") or "pca")
    name = _MAPS.get(reduction, reduction)
    dim = settings.get("dim", 3)
    if settings.get("per_layer"):
        map_ = f"Each frame has a {dim}-D {name} of its own, rotated onto the frame before"
    else:
        of = "a corpus" if settings.get("fit") == "corpus" else "all frames of this text"
        map_ = f"One {dim}-D {name}, fitted on {of}, places every frame"
    return f"Each particle is {particle}, through {shown}. {map_}."


def facts_of(report: Report) -> list[str]:
    """Describe the autoencoder's quality, where two prompts differ, and which tokens are outliers.

    The tokens of two prompts are described before the layers."""
    first, *layers = _difference(report) or [""]
    found = [*_reconstruction(report), *([first] if first else []), *_zeros(report), *layers]
    if words := _outliers(report):
        found.append(words)
    found += [words for words in (neighbours_said(report), moves_said(report)) if words]
    return found


def neighbours_said(report: Report) -> str:
    """Name the frames where the picture keeps no more neighbours than a random projection; "" for
    none.

    Saved pictures of earlier versions lack this figure.
    """
    where = _no_better(report, "neighbours_kept", "neighbours_random")
    return where and (
        f"{where} the picture keeps no more neighbours than a random projection does: nearness "
        "means little there."
    )


def moves_said(report: Report) -> str:
    """Name the frames where the picture keeps moves no better than a random projection; "" for
    none.
    """
    where = _no_better(report, "displacement_correlation", "displacement_random")
    return where and (
        f"{where} the picture ranks moves no better than a random projection does: the distances "
        "that particles move mean little there."
    )


def _no_better(report: Report, kept: str, random: str) -> str:
    """Where a figure is no larger than that of random projections: how often, and the worst."""
    known = [
        each
        for each in report.get("fidelity") or ()
        if each.get(kept) is not None and each.get(random) is not None
    ]
    found = [each for each in known if each[kept] <= each[random]]
    if not found:
        return ""
    worst = min(found, key=lambda each: each[kept] - each[random])
    figures = f"{worst[kept]:.2f} compared with {worst[random]:.2f}".replace("-", "−")
    if len(found) > _MOST_NAMED:
        most = f"worst: {_frame_words(worst['frame'])}, {figures}"
        return f"In {len(found)} of {len(known)} frames ({most})"
    *first, last = (_frame_words(each["frame"]) for each in found)
    if not first:
        return f"At {last} ({figures})"
    return f"At {', '.join(first)} and {last} (worst: {_frame_words(worst['frame'])}, {figures})"


def _frame_words(name: Any) -> str:
    return "the embedding" if name == "embedding" else str(name)


def sentence(text: str) -> str:
    """Capitalise the first letter and add a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def named(text: str) -> str:
    """A token's text for display."""
    return readable(text) or NAMELESS


def _reconstruction(report: Report) -> list[str]:
    """What an autoencoder reconstructs of text that it has not seen, beside simpler codes."""
    evaluation = (report.get("autoencoder") or {}).get("evaluation")
    if not evaluation:
        return []
    if evaluation["total"]["autoencoder"] is None:
        return [f"The autoencoder has no R²: {evaluation['reason']}."]
    own, pca, per_frame, untrained = (
        _number(evaluation["total"][name])
        for name in ("autoencoder", "pca_same_size", "pca_per_frame", "untrained")
    )
    n = evaluation["n_sequences"]
    margin = evaluation["total"]["margins"]["pca_same_size"]
    error = "" if margin["error"] is None else f" ± {_number(margin['error'])}"
    return [
        f"On {n} {'window' if n == 1 else 'windows'} of unseen text, the autoencoder "
        f"reconstructs tokens with R² {own}. PCA with as many numbers per sequence, from which its "
        f"training starts, has {pca} (mean difference per window {_number(margin['difference'])}"
        f"{error}), PCA of each frame with as many {per_frame}, untrained queries {untrained}, "
        "and the mean vector 0."
    ]


def _difference(report: Report) -> list[str]:
    difference = report.get("first_difference")
    if not difference:
        reason = (report.get("reasons") or {}).get("first_difference")
        return [sentence(reason)] if reason else []
    a, b = (_token(report, k, difference["position"]) for k in (0, 1))
    place = f"token {difference['position']}, counted from 0"
    first = f"The first differing token is {place}: {a} in A, {b} in B."
    samples, equal = (int(difference.get(name) or 0) for name in ("n_samples", "n_equal"))
    if not samples:
        reason = difference.get("reason")
        return [first, f"No layer is named: {reason}."] if reason else [first]
    is_end = difference.get("at") == "end"
    change = "The change moves the shared end" if is_end else "The change moves the last token"
    own = _number(difference.get("distance"))
    pairs = f"{samples} sampled pairs of continuations"
    if equal:
        verb = "is equal and doesn’t" if equal == 1 else "are equal and don’t"
        pairs += f" (of {int(difference['n_drawn']):,} drawn, {equal:,} {verb} count)"
    name = _frame_name(report, difference)
    high = _number(difference.get("null_high"))
    if name is None:
        median = _number(difference.get("null_median"))
        return [
            first,
            f"{change} no more than other continuations that the model samples would. In the last "
            f"layer the distance between A and B is {own}; the distance of {pairs} is {median} "
            f"(median) and {high} (95th percentile). No layer’s distance exceeds its 95th "
            "percentile.",
        ]
    chance, stays = difference.get("chance"), difference.get("stays")
    rows = difference.get("per_frame") or [{}]
    has_later = stays is not None and rows[-1].get("layer", -1) != difference.get("layer")
    later = f" {_LATER[bool(stays)]}" if has_later else ""
    beside = (
        ""
        if chance is None
        else (
            f" Of the sampled pairs themselves, {chance:.0%} exceed the other pairs’ in some layer."
        )
    )
    layer = _frame_words(name)
    return [
        first,
        f"{layer[0].upper()}{layer[1:]} is the first where {change[0].lower()}{change[1:]} more "
        "than most other continuations that the model samples would: the distance between A and "
        f"B is {own}, and the 95th percentile of {pairs} is {high}.{later}{beside}",
    ]


_LATER = {
    True: "The same holds in every later layer.",
    False: "This does not hold in some later layers.",
}


def _frame_name(report: Report, difference: Mapping[str, Any]) -> str | None:
    frame, layer = difference.get("frame"), difference.get("layer")
    if isinstance(frame, int):
        return str(report["frames"][frame]["name"])
    return None if layer is None else f"layer {layer}"


def _zeros(report: Report) -> list[str]:
    zeros = report.get("causal_zeros")
    if not zeros:
        return []
    n = int(zeros.get("tokens") or 0)
    error = float(zeros["max_error"])
    differ = "are equal, in every frame"
    if error:
        differ = (
            f"are equal up to rounding, in every frame: at most {_error(error)} of their norm apart"
        )
    if not report.get("first_difference"):
        every = "the one token" if n == 1 else f"all {n} tokens"
        return [f"The states of {every} {differ}."]
    tokens = "one token" if n == 1 else f"{n} tokens"
    return [f"The states of the {tokens} before the first differing one {differ}."]


def _outliers(report: Report) -> str:
    given = report.get("outliers") or ()
    of = (" of A", " of B") if len(report["prompts"]) > 1 else ("", "")
    names = [
        f"{_token(report, each['prompt'], each['token'])} (token {each['token']}"
        f"{of[each['prompt']]})"
        for each in given
    ]
    if not names:
        return ""
    *first, last = names if len(names) <= 6 else [*names[:6], f"{len(names) - 6} more"]
    shown = f"{', '.join(first)} and {last}" if first else last
    times = [each["times_usual"] for each in given if each.get("times_usual") is not None]
    up_to = f", up to {_number(max(times))} times" if times else ""
    norms = "norms of" if first else "norm of"
    are = "are" if first else "is"
    return f"The {norms} {shown} {are} many times the median{up_to}."


def _token(report: Report, prompt: int, token: int) -> str:
    tokens = report["prompts"][prompt]["tokens"]
    return f"“{named(str(tokens[token]['text']))}”" if token < len(tokens) else "the end"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def _error(value: float) -> str:
    return f"{value:.0e}".replace("-", "−")
