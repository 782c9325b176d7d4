"""Tokens and positions as a user names them."""

from __future__ import annotations

from typing import Any

import pytest

from projector.errors import SettingError
from projector.model.loading import LoadedModel
from projector.residual.subject import Subject
from projector.residual.tokens import find_position, find_token, unreadable
from tests.families import N_VOCABULARY, build


@pytest.fixture(scope="module")
def subject(tokenizer: Any) -> Subject:
    return Subject(LoadedModel(build("llama"), tokenizer, "tiny", ""))


def spaced(subject: Subject) -> int:
    """A token of letters with a space before it, whose bare form is another token or none."""
    pieces = subject.pieces()
    return next(i for i in pieces.piece_ids.tolist() if pieces.text(i)[:1] == " " < pieces.text(i))


def test_every_token_is_found_by_its_text(subject: Subject) -> None:
    pieces = subject.pieces()
    for i in pieces.piece_ids.tolist():
        assert pieces.text(find_token(subject, pieces.text(i))) == pieces.text(i)


def test_a_token_by_its_id_its_signs_and_its_spelling(subject: Subject) -> None:
    wanted = spaced(subject)
    text = subject.pieces().text(wanted)
    spelling = subject.loaded.tokenizer.convert_ids_to_tokens(wanted)
    assert spelling != text
    for form in (text, f"#{wanted}", wanted, f"␣{text[1:]}", spelling):
        assert find_token(subject, form) == wanted
    assert find_token(subject, "⏎") == find_token(subject, "\n")
    assert find_token(subject, f"#{N_VOCABULARY - 1}") == N_VOCABULARY - 1


def test_the_space_tells_two_tokens_apart(subject: Subject) -> None:
    pieces = subject.pieces()
    texts = {pieces.text(i): i for i in pieces.piece_ids.tolist()}
    bare = next(text for text in texts if text.isalpha() and f" {text}" in texts)
    assert find_token(subject, bare) == texts[bare]
    assert find_token(subject, f" {bare}") == texts[f" {bare}"]


def refused(subject: Subject, text: Any, setting: str = "token") -> SettingError:
    with pytest.raises(SettingError) as caught:
        find_token(subject, text, setting=setting)
    assert caught.value.setting == setting
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_several_tokens_are_refused_and_their_pieces_offered(subject: Subject) -> None:
    text = "kalozzqx"
    error = refused(subject, text, "against")
    assert error.value == text
    ids = subject.loaded.tokenizer.encode(text, add_special_tokens=False)
    assert str(len(ids)) in str(error)
    assert error.expected is not None
    for i in ids[:8]:
        assert f"#{i})" in error.expected


def test_one_that_is_a_token_with_a_space_before_it_is_told_so(subject: Subject) -> None:
    pieces = subject.pieces()
    texts = {pieces.text(i): i for i in pieces.piece_ids.tolist()}
    bare, wanted = next(
        (text[1:], i)
        for text, i in texts.items()
        if text[:1] == " " and len(text) > 2 and text[1:] not in texts
    )
    error = refused(subject, bare)
    assert error.expected is not None
    assert f"#{wanted})" in error.expected


@pytest.mark.parametrize("given", ["", f"#{N_VOCABULARY}", "#99999999", -1, N_VOCABULARY])
def test_what_names_no_token(subject: Subject, given: Any) -> None:
    assert refused(subject, given).value == given


def test_a_vocabulary_that_lacks_a_word() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "one": 1, "two": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    subject = Subject(LoadedModel(build("llama"), tokenizer, "tiny", ""))
    error = refused(subject, "three")
    assert error.value == "three"
    assert find_token(subject, "one") == 1


def test_signs_are_read_back() -> None:
    assert unreadable("␣a␣⏎⇥⟨U+200B⟩") == " a \n\t​"


def test_positions_count_from_either_end() -> None:
    assert [find_position(5, p) for p in (0, 4, -1, -5)] == [0, 4, 4, 0]
    for position in (5, -6):
        with pytest.raises(SettingError) as caught:
            find_position(5, position)
        assert (caught.value.setting, caught.value.value) == ("position", position)
