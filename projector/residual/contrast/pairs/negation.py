"""Statements against their negations, made from templates.

The two prompts of a couple differ in one word at the same place: ``indeed``, ``really``, ``surely``
or ``truly`` in the statement, ``not``, ``never``, ``hardly`` or ``scarcely`` in its negation ("a
violin is indeed an instrument", "a violin is never an instrument"). So both sets have the same
subjects, the same numbers of words, and the same last words. At the embedding of the last token the
sets are equal, and any later separation is the work of the model.

The sets don't control for the marking word: one of four words marks each set, always after the
verb. A head that attends to this word copies its set to the last token, so an accurate probe in an
early layer shows that the word was copied, not that a meaning was untangled.

The numbers of words are balanced, and so are the numbers of tokens if the vocabulary has these
words as tokens. In a small vocabulary "indeed" or "scarcely" takes two or three tokens, and the
prompt is longer.

Half of the statements are true and half are false, and so are half of the negations, where hardly
and scarcely count as negations. A direction between the sets is therefore about the negating word,
and not about truth. Statements end without a full stop, because otherwise all prompts would end
with the same token.

There are five forms: the kind of a thing, the country of a city, which thing is larger, the parts
of an animal, a plant or a vehicle, and which of two numbers is greater. All statements about one
thing, or one pair of things, form a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

from projector.residual.contrast.pairs.pair import Couple, Pair

_AFFIRMING = ("indeed", "really", "surely", "truly")
_NEGATING = ("not", "never", "hardly", "scarcely")

_KINDS = {
    "a fish": "trout salmon herring carp pike tuna",
    "a bird": "robin swallow heron gull falcon parrot",
    "an insect": "beetle moth wasp cricket grasshopper butterfly",
    "a tree": "birch maple cedar willow larch pine",
    "a fruit": "pear plum cherry melon mango banana",
    "an instrument": "violin trumpet flute guitar cello drum",
    "a tool": "hammer chisel saw wrench drill rake",
    "a vehicle": "truck bicycle tram van lorry tractor",
    "a garment": "coat shirt scarf skirt jacket glove",
    "a building": "castle hotel barn church tower library",
    "a dish": "soup stew salad pancake pizza curry",
    "a shape": "circle square triangle hexagon rectangle oval",
}
# What a thing might be called all the same: a plum is also a tree.
_ALSO = {
    "a fruit": {"a tree", "a dish"},
    "a fish": {"a dish"},
    "an instrument": {"a tool"},
    "a tool": {"an instrument"},
    "a vehicle": {"a tool"},
}
_PLACES = {
    "Paris": "France",
    "Lyon": "France",
    "Berlin": "Germany",
    "Hamburg": "Germany",
    "Rome": "Italy",
    "Milan": "Italy",
    "Madrid": "Spain",
    "Seville": "Spain",
    "Lisbon": "Portugal",
    "Porto": "Portugal",
    "Vienna": "Austria",
    "Warsaw": "Poland",
    "Prague": "Czechia",
    "Oslo": "Norway",
    "Stockholm": "Sweden",
    "Athens": "Greece",
    "Cairo": "Egypt",
    "Nairobi": "Kenya",
    "Lagos": "Nigeria",
    "Tokyo": "Japan",
    "Osaka": "Japan",
    "Seoul": "Korea",
    "Delhi": "India",
    "Mumbai": "India",
    "Hanoi": "Vietnam",
    "Lima": "Peru",
    "Bogota": "Colombia",
    "Toronto": "Canada",
    "Dallas": "Texas",
    "Houston": "Texas",
    "Sydney": "Australia",
    "Dublin": "Ireland",
}
# From the smallest to the largest; two that stand next to each other are not compared.
_SIZES = (
    "an ant",
    "a bee",
    "a mouse",
    "a rabbit",
    "a fox",
    "a sheep",
    "a horse",
    "an elephant",
    "a house",
    "a village",
    "a city",
    "a country",
    "a continent",
    "a planet",
)
_HAVE = {
    "wings": "swan pigeon bee duck hawk sparrow",
    "gills": "shark cod eel minnow sardine trout",
    "hooves": "horse cow goat sheep donkey pony",
    "wheels": "car bus lorry scooter wagon tram",
    "roots": "oak tulip rose poplar fir nettle",
}
_NUMBERS = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "twenty",
    "thirty",
    "forty",
)

# Before and after the word in which the two prompts differ, and the group.
Statement = tuple[str, str, str]


def _couples(random: Random) -> Iterator[Couple]:
    true, false = _kinds(random), _kinds(random, is_true=False)
    for make in (_places, _sizes, _having, _numbers):
        true += make(random)
        false += make(random, is_true=False)
    random.shuffle(true)
    random.shuffle(false)
    for one, other in zip(true, false, strict=False):
        for before, after, group in (one, other):
            yes, no = random.choice(_AFFIRMING), random.choice(_NEGATING)
            yield Couple(f"{before} {yes} {after}", f"{before} {no} {after}", group)


def _with_article(noun: str) -> str:
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


def _other(random: Random, names: Iterable[str], own: str) -> str:
    left_out = _ALSO.get(own, set()) | {own}
    return random.choice([each for each in names if each not in left_out])


def _kinds(random: Random, *, is_true: bool = True) -> list[Statement]:
    found = []
    for kind, nouns in _KINDS.items():
        for noun in nouns.split():
            shown = kind if is_true else _other(random, _KINDS, kind)
            found.append((f"{_with_article(noun)} is", shown, f"kind {noun}"))
    return found


def _places(random: Random, *, is_true: bool = True) -> list[Statement]:
    countries = sorted(set(_PLACES.values()))
    return [
        (f"{city} is", f"in {own if is_true else _other(random, countries, own)}", f"place {city}")
        for city, own in _PLACES.items()
    ]


def _sizes(random: Random, *, is_true: bool = True) -> list[Statement]:
    pairs = [(a, b) for i, a in enumerate(_SIZES) for b in _SIZES[i + 2 :]]
    found = []
    for small, large in random.sample(pairs, 40):
        first, second = (large, small) if is_true else (small, large)
        text = first[0].upper() + first[1:]
        found.append((f"{text} is", f"larger than {second}", f"size {small} {large}"))
    return found


def _having(random: Random, *, is_true: bool = True) -> list[Statement]:
    found = []
    for part, animals in _HAVE.items():
        for animal in animals.split():
            shown = part if is_true else _other(random, _HAVE, part)
            found.append(
                (f"{_with_article(animal)} is", f"equipped with {shown}", f"having {animal}")
            )
    return found


def _numbers(random: Random, *, is_true: bool = True) -> list[Statement]:
    pairs = [(a, b) for i, a in enumerate(_NUMBERS) for b in _NUMBERS[i + 1 :]]
    found = []
    for small, large in random.sample(pairs, 40):
        first, second = (large, small) if is_true else (small, large)
        found.append((f"{first.title()} is", f"greater than {second}", f"number {small} {large}"))
    return found


NEGATION = Pair(
    name="negation",
    positive_name="statements",
    negative_name="negations",
    holds="short statements, half of them false, against their negations",
    couples=_couples,
    caution="One of four words marks each prompt of a set (not, never, hardly and scarcely mark "
    "negations). Attention to that word is enough for a probe at the last token: a high accuracy "
    "alone does not show that a meaning is untangled.",
)
