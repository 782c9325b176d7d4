"""The project's own pairs: what both sets share, and in what alone they differ."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from projector.residual.contrast.pairs.negation import _couples
from projector.residual.contrast.pairs.registry import PAIRS
from projector.residual.contrast.prompts import draw_pair


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_large_and_drawn_alike(name: str) -> None:
    found = draw_pair(name)
    assert min(len(found.positive), len(found.negative)) >= 200
    assert len({*found.positive, *found.negative}) == len(found.positive) + len(found.negative)
    assert found.positive_groups == found.negative_groups
    assert len(set(found.positive_groups)) >= 30
    assert draw_pair(name) == found
    other = draw_pair(name, seed=1)
    assert other.sha256 != found.sha256
    assert len(draw_pair(name, n=20).positive) == 20


def test_code_has_no_docstring_and_docstrings_are_prose() -> None:
    found = draw_pair("code-docstrings")
    for code, prose in zip(found.positive, found.negative, strict=True):
        (function,) = ast.parse(code).body
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(function) is None
        assert "#" not in code
        assert prose not in code
        assert not set("()[]{}=_<>`\\\n") & set(prose)
    # No stop at the end: one token would end nearly all of them.
    assert max(Counter(prose.split()[-1] for prose in found.negative).values()) < 20
    assert max(Counter(found.negative_groups).values()) <= 8


def test_a_negation_differs_in_one_word_and_ends_the_same() -> None:
    found = draw_pair("negation")
    negators: Counter[str] = Counter()
    for statement, negation in zip(found.positive, found.negative, strict=True):
        one, other = statement.split(), negation.split()
        (differing,) = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        negators[other[differing]] += 1
        assert differing < len(one) - 1
    # No single word marks a set, and what marks it nevertheless is said.
    assert len(negators) == 4
    assert max(negators.values()) < 0.4 * len(found.negative)
    assert len({*found.positive_groups}) > 100
    (note,) = found.notes
    assert all(word in note for word in negators)
    assert len({text.split()[-1] for text in found.positive}) > 40


def test_half_of_the_statements_are_true() -> None:
    from random import Random

    texts = [each.positive for each in _couples(Random(0))]
    assert len(texts) >= 400
    sizes = ["ant", "mouse", "rabbit", "horse", "elephant", "village", "country", "planet"]
    comparisons = [text.split() for text in texts if "larger" in text]
    known = [w for w in comparisons if w[1] in sizes and w[-1] in sizes]
    true = [sizes.index(w[1]) > sizes.index(w[-1]) for w in known]
    assert 0.3 < sum(true) / len(true) < 0.7
    # In turns, so that any draw is balanced.
    assert [sum("Paris" in text for text in texts)] == [2]
    assert any(text.startswith("Paris") and text.endswith("France") for text in texts)
