"""Search by text: the neurons and poles of all layers that fire on a token, the strongest first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from projector.corpus.pieces import Pieces, readable
from projector.errors import SettingError
from projector.naming.groups import group_label
from projector.naming.labels import LOWEST, MOST_BY_CHANCE, neuron_labels, strongest
from projector.naming.names import Names, read_names
from projector.naming.poles import SavedPole, saved_poles
from projector.naming.words import shown, word_of, words_of
from projector.projection.projection import Projection
from projector.sites import map_of
from projector.statistics.examples import Examples

# Of a neuron's weight and of its examples: what has less does not fire on the token.
LEAST_STRENGTH, _LEAST_AGREEING = 0.2, 2
_MOST_NEAR = 8
_ADDRESS = re.compile(r"\s*L(\d{1,6})[\s/]*N(\d{1,9})\s*", re.ASCII | re.IGNORECASE)
# A spelling with other capitals counts as half of it, so that the one that was asked for is first.
_OTHER_SPELLING = 0.5
# And the weaker end of a neuron less than the one that its label tells of.
_OTHER_END = 0.75


@dataclass(frozen=True)
class Result:
    """A neuron or a pole that fires on the search text.

    Attributes:
        layer, site: its layer and site.
        neuron, pole: its number; one of the two is None.
        label: its name if the user gave it one, otherwise its computed label.
        strength: the share of its strongest examples on the token, in [0, 1], weighted by how far
            each exceeds the usual activation; for a pole, the mean over its members. None if it was
            found by its name or address.
        n_agreeing, n_examples: number of examples on the token, and of all examples; for a pole,
            summed over its members.
        sign: 1 if its highest activations are on the token, −1 if its lowest are.
        poles_file: the poles file for the pole's settings, relative to the projection's folder.
    """

    layer: int
    site: str
    neuron: int | None
    pole: int | None
    label: str
    strength: float | None
    n_agreeing: int = 0
    n_examples: int = 0
    sign: int = 1
    poles_file: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values; ``strength`` is None if it was found by its name or address."""
        where: dict[str, Any] = {"layer": self.layer, "site": self.site}
        where |= {"neuron": self.neuron} if self.pole is None else {"pole": self.pole}
        return where | {
            "label": self.label,
            "strength": None if self.strength is None else round(self.strength, 4),
            "n_agreeing": self.n_agreeing,
            "n_examples": self.n_examples,
            "sign": self.sign,
            **({} if self.poles_file is None else {"poles_file": self.poles_file}),
        }


@dataclass(frozen=True)
class Results:
    """The results of a search, the strongest first.

    Attributes:
        text: the search text.
        results: matches by the user's names come first.
        message: if there are no results, one line with similar tokens; otherwise None.
    """

    text: str
    results: tuple[Result, ...]
    message: str | None = None

    @property
    def neurons(self) -> tuple[Result, ...]:
        """The results that are neurons."""
        return tuple(each for each in self.results if each.neuron is not None)

    @property
    def poles(self) -> tuple[Result, ...]:
        """The results that are poles."""
        return tuple(each for each in self.results if each.pole is not None)


@dataclass(frozen=True)
class Wanted:
    """The tokens that match a search text.

    Attributes:
        ids: tokens equal to the text; if it has no leading space and no capitals, these are
            ignored.
        exact: the subset with the same capitals.
    """

    ids: frozenset[int]
    exact: frozenset[int]


def search(projection: Projection, folder: str | Path, text: str) -> Results:
    """Search for neurons and poles of all maps that fire on a token, the strongest first.

    ``method`` matches all tokens that equal it, ignoring a leading space and capitals;
    ``" self"``, with its space, matches that token only; ``L3 N345`` matches that neuron. The
    user's names are searched too.

    Args:
        projection: with examples, see :attr:`projector.projection.overview.Overview.has_examples`.
        folder: the projection's folder, with names and poles.
        text: a token, a neuron's address, or a part of a name.

    Raises:
        SettingError: on ``text``, if it is empty.
        UserError: on ``keep_examples``, if the projection holds no examples and no name matches.
    """
    if not text:
        raise SettingError("text", text, "is empty", "give a word, such as self")
    names = read_names(folder)
    saved = tuple(saved_poles(folder))
    if address := _ADDRESS.fullmatch(text):
        return _at_address(projection, names, text, int(address[1]), int(address[2]))
    named = list(_named(names, saved, text.strip().casefold()))
    if named and not projection.has_examples:
        return Results(text, tuple(named))
    pieces = projection.pieces
    wanted = tokens_of(pieces, text)
    found: list[tuple[float, Result]] = []
    for layer, site in projection.maps if wanted.ids else ():
        examples = projection.examples(layer, site)
        own = [each for each in saved if (each.layer, each.site) == (layer, site)]
        own = [each for each in own if each.is_searched]
        found += search_map(examples, pieces, layer, site, wanted, names, own)
    # Of equals the earlier layer, and a pole before its neurons.
    found.sort(key=lambda item: -item[0])
    results = (*named, *(result for _, result in found if not _is_among(result, named)))
    return Results(text, results, None if results else _near(pieces, text, wanted))


def tokens_of(pieces: Pieces, text: str) -> Wanted:
    """Find the tokens that match a text; ⏎ and ␣ match the characters they represent."""
    plain = text.replace("⏎", "\n").replace("⇥", "\t").replace("␣", " ")
    texts = {i: pieces.text(i) for i in pieces.piece_ids.tolist()}
    if plain != plain.lstrip(" ") and plain.strip():
        exact = frozenset(i for i, each in texts.items() if each == plain)
        return Wanted(exact, exact)
    word = word_of(plain)
    ids = frozenset(i for i, each in texts.items() if word_of(each) == word)
    bare = plain.strip(" ") or plain
    return Wanted(ids, frozenset(i for i in ids if (texts[i].strip(" ") or texts[i]) == bare))


def search_map(
    examples: Examples,
    pieces: Pieces,
    layer: int,
    site: str,
    wanted: Wanted,
    names: Names,
    poles: list[SavedPole],
) -> list[tuple[float, Result]]:
    """Search one map for neurons and poles that fire on tokens, with their ranking keys."""
    ids = np.array(sorted(wanted.ids), dtype=np.int64)
    exact = np.array(sorted(wanted.exact), dtype=np.int64)
    best: dict[int, tuple[float, Result]] = {}
    candidates: dict[int, NDArray[np.bool_]] = {}
    for sign in (1, -1):
        at = (examples.highest_at if sign > 0 else examples.lowest_at).long().numpy()
        tokens = np.where(at >= 0, examples.ids.numpy()[at], -1)
        candidates[sign] = np.isin(tokens, ids)
    words = words_of(pieces)
    chances, word = words.frequencies(examples.ids), int(words.numbers(ids[:1])[0])
    shares = {sign: np.zeros(examples.n_neurons) for sign in (1, -1)}
    labels: dict[int, str] = {}
    for sign, on_it in candidates.items():
        rows = np.flatnonzero(on_it.sum(axis=1) >= _LEAST_AGREEING)
        if not len(rows):
            continue
        extremes = strongest(examples, sign, rows)
        is_own = strongest(examples, None, rows).signs == sign
        tokens = np.where(extremes.at >= 0, examples.ids.numpy()[extremes.at], -1)
        share = (extremes.weights * on_it[rows]).sum(axis=1)
        spelled = (extremes.weights * np.isin(tokens, exact)).sum(axis=1)
        shares[sign][rows] = share
        n_known = (extremes.weights > 0).sum(axis=1)
        n_on_it = (on_it[rows] & (extremes.weights > 0)).sum(axis=1)
        for k in np.flatnonzero(share >= LEAST_STRENGTH).tolist():
            neuron, n = int(rows[k]), int(n_on_it[k])
            if chances.by_chance(word, n, int(n_known[k])) > MOST_BY_CHANCE:
                continue
            rank = float(spelled[k] + _OTHER_SPELLING * (share[k] - spelled[k]))
            rank *= 1.0 if is_own[k] else _OTHER_END
            if neuron in best and best[neuron][0] >= rank:
                continue
            # Floats of a sum of shares may stand a little above 1.
            strength = min(1.0, float(share[k]))
            result = Result(layer, site, neuron, None, "", strength, n, int(n_known[k]), sign)
            best[neuron] = (rank, result)
    found = _pole_results(examples, pieces, names, poles, shares, candidates)
    for sign in (1, -1):
        chosen = sorted(j for j, (_, result) in best.items() if result.sign == sign)
        labels |= _labels_of(examples, pieces, chosen, sign) if chosen else {}
    for neuron, (rank, result) in sorted(best.items()):
        label = names.of_neuron(layer, site, neuron) or labels[neuron]
        found.append((rank, Result(**vars(result) | {"label": label})))
    return found


def _labels_of(
    examples: Examples, pieces: Pieces, neurons: list[int], sign: int | None = None
) -> dict[int, str]:
    """Texts of the labels of some neurons; of the end that ``sign`` says, None for the stronger."""
    found = neuron_labels(examples, pieces, sign, np.array(neurons, dtype=np.int64))
    return {
        neuron: "" if label is None else label.text
        for neuron, label in zip(neurons, found, strict=True)
    }


def _pole_results(
    examples: Examples,
    pieces: Pieces,
    names: Names,
    poles: list[SavedPole],
    shares: Mapping[int, NDArray[np.float64]],
    on_it: Mapping[int, NDArray[np.bool_]],
) -> list[tuple[float, Result]]:
    found = []
    for pole in poles:
        members = np.array(pole.neurons, dtype=np.int64)
        if not len(members) or members.max() >= examples.n_neurons or members.min() < 0:
            continue
        sign = max((1, -1), key=lambda each: shares[each][members].mean())
        strength = min(1.0, float(shares[sign][members].mean()))
        if strength < LEAST_STRENGTH:
            continue
        label = names.of_pole(pole.layer, pole.site, pole.file, pole.neurons) or pole.label
        # What is kept may be of the end that was not hit.
        is_other_end = label == pole.label and (sign < 0) != (label or "").endswith(LOWEST)
        if label is None or is_other_end:
            computed = group_label(examples, pieces, pole.neurons, sign=sign)
            label = "" if computed is None else computed.text
        counted = on_it[sign][members]
        found.append(
            (
                strength,
                Result(
                    pole.layer,
                    pole.site,
                    None,
                    pole.number,
                    label,
                    strength,
                    int(counted.sum()),
                    int(counted.size),
                    sign,
                    pole.file,
                ),
            )
        )
    return found


def _at_address(
    projection: Projection, names: Names, text: str, layer: int, neuron: int
) -> Results:
    """The neuron of a number in each site of a layer that has as many."""
    found = []
    for at, site in projection.maps:
        if at != layer or neuron >= projection.figures(layer, site).n_neurons:
            continue
        label = names.of_neuron(layer, site, neuron)
        if label is None and projection.has_examples:
            label = _labels_of(projection.examples(layer, site), projection.pieces, [neuron])[
                neuron
            ]
        found.append(Result(layer, site, neuron, None, label or "", None))
    layers = ", ".join(map(str, projection.layers[:12]))
    told = (
        f"layer {layer} has no neuron {neuron}: give a smaller number"
        if layer in projection.layers
        else f"layer {layer} is not in this projection: it has {layers}"
        + (" …" if len(projection.layers) > 12 else "")
    )
    return Results(text, tuple(found), None if found else told)


def _named(names: Names, poles: tuple[SavedPole, ...], wanted: str) -> Iterator[Result]:
    """Neurons and poles whose user's name holds the text."""
    if not wanted:
        return
    for pole in poles:
        name = names.of_pole(pole.layer, pole.site, pole.file, pole.neurons)
        if name is not None and wanted in name.casefold():
            yield Result(pole.layer, pole.site, None, pole.number, name, None, poles_file=pole.file)
    for map_, found in names.neurons.items():
        layer, site = map_of(map_)
        for neuron, name in found.items():
            if wanted in name.casefold():
                yield Result(layer, site, neuron, None, name, None)


def _is_among(result: Result, others: list[Result]) -> bool:
    key = _key(result)
    return any(key == _key(each) for each in others)


def _key(result: Result) -> tuple[int, str, int | None, int | None, str | None]:
    return result.layer, result.site, result.neuron, result.pole, result.poles_file


def _near(pieces: Pieces, text: str, wanted: Wanted) -> str:
    """One line for a search without results: what tokens of the corpus come near."""
    shown_text = readable(text.strip(" ") or text)
    if wanted.ids:
        return (
            f"no neuron's strongest examples are mostly “{shown_text}”, which is a token of the "
            "corpus: search for another word"
        )
    texts = {pieces.text(i) for i in pieces.piece_ids.tolist()}
    words: dict[str, str] = {}
    for each in sorted(texts, key=lambda each: (len(each.strip(" ")), each)):
        words.setdefault(word_of(each), shown(each))
    word = word_of(text)
    near = [
        w for w in words if len(w) > 1 and (word in w or (w in word and len(w) * 2 > len(word)))
    ]
    near += difflib.get_close_matches(word, list(words), n=_MOST_NEAR, cutoff=0.7)
    listed = [words[w] for w in dict.fromkeys(near)][:_MOST_NEAR]
    if not listed:
        return f"no token of the corpus is like “{shown_text}”: search for another word"
    return f"no token of the corpus is “{shown_text}”; near it: {', '.join(listed)}"
