"""Labels tell what neurons fire on: their words, their sign, and when examples do not agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from projector.naming.groups import group_label, members_on_label
from projector.naming.labels import Label, neuron_labels, snippets
from projector.naming.words import compact, kind_of, shown, word_of
from tests.projector.naming.corpora import Words

FILLER = [f" word{chr(97 + k % 26)}{k}" for k in range(60)]
VOCABULARY = [*FILLER, "self", " self", " Self", ".", "\n", "\n\n    ", "        ", " FOO", " BAR"]
VOCABULARY += [" BAZ", " QUX", " ABC", " XYZ", " RST", " KLM", "name", " the"]


@pytest.fixture(scope="module")
def words() -> Words:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, len(VOCABULARY), 20 * 200)
    # As in any text, some words are many.
    ids[rng.random(len(ids)) < 0.3] = VOCABULARY.index(" the")
    return Words(VOCABULARY, ids)


def label_of(words: Words, activation: np.ndarray) -> Label:
    noise = np.random.default_rng(1).normal(0, 0.1, activation.shape)
    (label,) = neuron_labels(words.examples((activation + noise)[:, None]), words.pieces)
    assert label is not None
    return label


def test_a_word_is_one_with_its_space_and_its_capital(words: Words) -> None:
    found = label_of(words, 5.0 * words.where("self", " self", " Self"))
    assert (found.text, found.sign, found.n_agreeing, found.n_examples) == ("self", 1, 10, 10)
    assert len(found.tokens) == 1
    assert found.tokens[0][1] == pytest.approx(1.0)
    assert found.by_chance < 1e-6
    assert not found.is_mixed


def test_the_spelling_is_the_most_frequent_one(words: Words) -> None:
    found = label_of(words, 5.0 * words.where(" Self"))
    assert (found.text, found.tokens[0][0]) == ("Self", " Self")


def test_the_label_is_of_the_stronger_end(words: Words) -> None:
    fires = 2.0 * words.where("name") - 9.0 * words.where(" self")
    found = label_of(words, fires)
    assert (found.text, found.sign) == ("self ↓", -1)
    found = label_of(words, -fires)
    assert (found.text, found.sign) == ("self", 1)


def test_two_words_are_both_told(words: Words) -> None:
    found = label_of(words, 5.0 * words.where("name", " self"))
    assert set(found.text.split(" · ")) == {"name", "self"}
    assert not found.is_mixed


def test_the_token_before_is_tried_where_tokens_differ(words: Words) -> None:
    fires = 5.0 * np.roll(words.where("."), 1)
    # Not over the start of a sequence.
    fires[:: words.length] = 0
    found = label_of(words, fires)
    assert found.text == "after “.”"
    assert found.tokens[0][0] == "."
    assert found.n_agreeing == 10
    # Of the first token of a sequence nothing stands before.
    first = np.zeros(len(words.ids))
    first[:: words.length] = 5.0
    assert not label_of(words, first).text.startswith("after")


def test_a_kind_of_token_is_told(words: Words) -> None:
    found = label_of(words, 5.0 * words.where(*VOCABULARY[-10:-2]))
    assert found.text.startswith("CAPITALS: ")
    assert found.n_agreeing == 10


def test_what_does_not_agree_is_mixed(words: Words) -> None:
    rng = np.random.default_rng(7)
    fires = np.where(rng.random(len(words.ids)) < 0.02, 5.0, 0.0) * ~words.where(" the")
    found = label_of(words, fires)
    assert found.is_mixed
    assert found.text.endswith(" (mixed)")
    assert len(found.text) <= 24


def test_frequent_words_agree_by_chance(words: Words) -> None:
    # Three tokens in ten are "the": a neuron that fires on anything has it in some examples.
    rng = np.random.default_rng(3)
    found = label_of(words, np.where(rng.random(len(words.ids)) < 0.05, 5.0, 0.0))
    assert found.tokens[0][0] == " the"
    assert found.is_mixed
    # One that fires on it alone is another matter.
    found = label_of(words, 5.0 * words.where(" the"))
    assert (found.text, found.n_agreeing) == ("the", 10)
    assert found.by_chance < 0.02


def test_stronger_examples_weigh_more(words: Words) -> None:
    # Three examples far beyond the others.
    fires = 1.0 * words.where("name")
    fires[np.flatnonzero(words.where(" self"))[[0, 15, 30]]] = 50.0
    found = label_of(words, fires)
    assert found.tokens[0][0] == " self"
    assert found.tokens[0][1] > 0.9
    assert found.n_agreeing == 3


def test_what_cannot_be_seen_is_written_by_signs(words: Words) -> None:
    assert label_of(words, 5.0 * words.where("        ")).text == "␣×8"
    assert label_of(words, 5.0 * words.where("\n", "\n\n    ")).text in (
        "⏎ new line",
        "⏎⏎␣␣␣␣",
        "⏎⏎",
    )
    assert word_of("\n") == word_of("\n\n    ") != word_of("    ")
    assert shown("x" * 50) == "x×50"
    assert len(shown("abc" * 20)) == 20
    assert (kind_of(" FOO"), kind_of("Foo"), kind_of("foo"), kind_of("12"), kind_of("A")) == (
        "CAPITALS",
        "Capitalised",
        None,
        "numbers",
        None,
    )


def test_neurons_without_anything_have_no_label(words: Words) -> None:
    activations = np.zeros((len(words.ids), 3))
    activations[:, 1] = 5.0 * words.where(" self")
    activations[:, 2] = np.nan
    examples = words.examples(np.nan_to_num(activations))
    examples.highest_at[2] = examples.lowest_at[2] = -1
    examples.highest[2], examples.lowest[2] = -torch.inf, torch.inf
    examples.sample[:, 2] = torch.nan
    found = neuron_labels(examples, words.pieces)
    assert [label and label.text for label in found] == [None, "self", None]
    assert snippets(examples, words.pieces, 3, 2)[2] == ""
    assert group_label(examples, words.pieces, [0, 2]) is None
    assert group_label(examples, words.pieces, []) is None


def test_a_group_has_the_label_of_its_members_together(words: Words) -> None:
    rng = np.random.default_rng(5)
    fires = np.stack(
        [
            5.0 * words.where(" self", "self"),
            5.0 * words.where(" self", "name"),
            -5.0 * words.where(" self", "self"),
            5.0 * words.where("."),
        ],
        axis=1,
    )
    fires += rng.normal(0, 0.1, fires.shape)
    examples = words.examples(fires)
    found = group_label(examples, words.pieces, [0, 1])
    assert found is not None
    assert found.text.split(" · ")[0] == "self"
    # Places, each once: the second neuron's may be the first's.
    assert 10 <= found.n_examples <= 20
    # Members that fire against each other, turned to one end.
    found = group_label(examples, words.pieces, [0, 2], [1, -1])
    assert found is not None
    assert (found.text, found.n_agreeing) == ("self", found.n_examples)
    again = group_label(examples, words.pieces, [0, 2], [-1, 1])
    assert again is not None
    assert again.text == "self"


def test_labels_do_not_depend_on_who_else_is_there(words: Words) -> None:
    rng = np.random.default_rng(11)
    activations = rng.normal(size=(len(words.ids), 30)) ** 3
    activations[:, 4] += 9.0 * words.where(" self")
    examples = words.examples(activations)
    found = neuron_labels(examples, words.pieces)
    assert found == neuron_labels(examples, words.pieces)
    alone = words.examples(activations[:, [4]])
    assert neuron_labels(alone, words.pieces)[0] == found[4]


def test_a_snippet_is_one_line_with_its_token_marked() -> None:
    vocabulary = [" a", "\n", "    ", " self", ".", "b"]
    words = Words(vocabulary, np.tile([0, 1, 2, 3, 4, 5, 0, 0, 0, 0], 30), length=10)
    examples = words.examples(5.0 * words.where(" self")[:, None])
    (text,) = snippets(examples, words.pieces, 3, 2)
    assert text == "a⏎ «self».b"
    (text,) = snippets(words.examples(5.0 * words.where("\n")[:, None]), words.pieces, 1, 1)
    assert text == "a«⏎»"


def test_a_kind_that_tokens_have_by_chance_is_no_label(words: Words) -> None:
    activations = 5.0 * words.where(" FOO")[:, None]
    # One token in fourteen is in capitals: one example that is says nothing, two do.
    (found,) = neuron_labels(words.examples(activations, k=1), words.pieces)
    assert found is not None
    assert found.is_mixed
    activations = 5.0 * words.where(*VOCABULARY[-10:-2])[:, None]
    activations[words.length * 20 :] = 0
    activations += np.random.default_rng(1).normal(0, 0.1, activations.shape)
    (found,) = neuron_labels(words.examples(activations, k=4), words.pieces)
    assert found is not None
    assert found.text.startswith("CAPITALS: ")
    assert found.by_chance <= 0.02


def map_of(words: Words, n_sharing: int) -> np.ndarray:
    """60 neurons: each fires on three words of its own, the first ones on self too."""
    rng = np.random.default_rng(4)
    own = [rng.choice(60, 3, replace=False) for _ in range(60)]
    fires = np.stack([5.0 * np.isin(words.ids, each) for each in own], axis=1)
    fires[:, :n_sharing] += 5.0 * words.where(" self")[:, None]
    found: np.ndarray = fires + rng.normal(0, 0.3, fires.shape)
    return found


def test_what_the_members_of_a_group_share_is_told(words: Words) -> None:
    examples = words.examples(map_of(words, 12))
    found = group_label(examples, words.pieces, range(12))
    assert found is not None
    assert (found.text, found.is_mixed) == ("self …", False)
    ((text, weight),) = found.tokens
    assert text == " self"
    assert 0.1 < weight < 0.5
    assert found.n_agreeing < found.n_examples
    assert found.by_chance <= 0.02
    # Of the whole map's neurons no more fire on it than of others.
    examples = words.examples(map_of(words, 60))
    found = group_label(examples, words.pieces, range(12))
    assert found is not None
    assert found.is_mixed


def test_members_that_fire_on_the_label_are_known(words: Words) -> None:
    examples = words.examples(map_of(words, 12))
    found = group_label(examples, words.pieces, range(12))
    assert found is not None
    firing = members_on_label(examples, words.pieces, range(12), found)
    assert 0 < len(firing) < 12
    ids = [words.vocabulary.index(text) for text in ("self", " self", " Self")]
    for neuron in range(12):
        places = examples.highest_at[neuron].tolist()
        on_it = [at for at in places if words.ids[at] in ids]
        assert (neuron in firing) == (len(on_it) >= 2)
        assert firing.get(neuron, on_it[:1]) in (on_it[:1], *on_it[:1])
    # In the order in which they are asked for.
    backwards = members_on_label(examples, words.pieces, range(11, -1, -1), found)
    assert list(backwards) == list(firing)[::-1]
    assert members_on_label(examples, words.pieces, [], found) == {}


def test_members_that_fire_after_the_label_s_token_are_known(words: Words) -> None:
    after = np.roll(words.where(" self"), 1)
    after[:: words.length] = False
    noise = np.random.default_rng(3).normal(0, 0.1, (len(words.ids), 3))
    fires = 5.0 * np.stack([after, after, words.where(" self")], axis=1)
    examples = words.examples(fires + noise)
    found = group_label(examples, words.pieces, [0, 1])
    assert found is not None
    assert found.text == "after “self”"
    firing = members_on_label(examples, words.pieces, [0, 1, 2], found)
    assert list(firing) == [0, 1]
    assert {words.vocabulary[words.ids[at - 1]] for at in firing.values()} == {" self"}


def test_groups_by_chance_are_mixed(words: Words) -> None:
    examples = words.examples(map_of(words, 0))
    rng = np.random.default_rng(6)
    labels = [
        group_label(examples, words.pieces, rng.choice(60, size, replace=False).tolist())
        for size in (2, 3, 4, 8, 16) * 8
    ]
    # Of three neurons, each on a word of its own, no word is the group's.
    assert sum(label is not None and not label.is_mixed for label in labels) <= 2


def test_either_end_of_a_group_can_be_asked_for(words: Words) -> None:
    fires = 5.0 * words.where(" self") - 2.0 * words.where("name")
    noise = np.random.default_rng(1).normal(0, 0.1, (len(words.ids), 3))
    examples = words.examples(fires[:, None] + noise)
    for sign, text in ((None, "self"), (1, "self"), (-1, "name ↓")):
        found = group_label(examples, words.pieces, [0, 1, 2], sign=sign)
        assert found is not None
        assert (found.text, found.sign) == (text, sign or 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" of", "␣of"),
        (" " * 12, "␣×12"),
        (" " * 8 + "return", "␣×8return"),
        ("):\n", "):⏎"),
        ("   ", "␣␣␣"),
        ("", "∅"),
    ],
)
def test_a_token_in_a_table_keeps_its_blanks_and_counts_them(text: str, expected: str) -> None:
    assert compact(text) == expected
