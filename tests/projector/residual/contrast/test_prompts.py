"""Prompt sets: what is read, what is left out and counted, what is refused with its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from projector.errors import SettingError, UserError
from projector.residual.contrast.prompts import (
    draw_pair,
    encode_sets,
    fits_all,
    read_sets,
    tokenizer_note,
)
from projector.residual.subject import Subject
from tests.refused import lacking

ONE = [f"ka lo {i}" for i in range(12)]
OTHER = [f"mi ten {i}" for i in range(12)]


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes("\n".join([*lines, ""]).encode())
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write(tmp_path / "other.txt", OTHER)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    lines = ["\ufeff" + ONE[0], "", *ONE[1:], "  ", ONE[3], OTHER[0], OTHER[1]]
    one = tmp_path / "one.txt"
    one.write_bytes("\r\n".join(lines).encode())
    found = read_sets(one, write(tmp_path / "other.txt", OTHER))
    assert found.positive == tuple(ONE)
    assert found.negative == tuple(OTHER[2:])
    assert lacking(found.name, "one", "other") == []
    empty, repeated, shared = found.notes
    assert lacking(empty, "2 empty lines", "one") == []
    assert lacking(repeated, "1 repeated prompt", "one") == []
    assert lacking(shared, "2 prompts", "both") == []
    # Each prompt is alone in its group, and its place is the line of the file.
    groups = (*found.positive_groups, *found.negative_groups)
    assert len(set(groups)) == len(groups) == 22
    assert found.positive_places[1] == f"'{one}' line 3"


def test_lines_of_json_hold_texts_or_objects(tmp_path: Path, other: Path) -> None:
    rows = [ONE[0], {"prompt": ONE[1]}, {"text": "a\nb", "n": 3}, *ONE[2:]]
    path = write(tmp_path / "one.jsonl", [json.dumps(row) for row in rows])
    found = read_sets(path, other)
    assert found.positive == (ONE[0], ONE[1], "a\nb", *ONE[2:])
    plain = write(tmp_path / "same.jsonl", [json.dumps(text) for text in found.positive])
    assert read_sets(plain, other).sha256 == found.sha256
    assert read_sets(other, plain).sha256 != found.sha256


@pytest.mark.parametrize(
    ("line", "says"),
    [("{broken", "line 3"), ('{"other": 1}', "line 3"), ("[1]", "line 3"), ('"\\ud800"', "line 3")],
)
def test_a_broken_line_of_json_is_named(tmp_path: Path, other: Path, line: str, says: str) -> None:
    path = write(tmp_path / "one.jsonl", ['"a"', "", line, '"b"'])
    with pytest.raises(UserError) as caught:
        read_sets(path, other)
    assert caught.value.setting == "positive"
    assert caught.value.value == line
    assert f"'{path}' {says} " in str(caught.value)


def test_files_that_can_not_be_used_are_refused(tmp_path: Path, other: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("café\n".encode("latin-1"))
    wrong = [
        tmp_path / "none.txt",
        tmp_path,
        latin,
        write(tmp_path / "table.csv", ONE),
        write(tmp_path / "empty.txt", []),
        write(tmp_path / "single.txt", ONE[:1]),
        write(tmp_path / "nine.txt", ONE[:9] * 2),
        # All are in both sets.
        write(tmp_path / "copy.txt", OTHER),
    ]
    for path in wrong:
        with pytest.raises(SettingError) as caught:
            read_sets(path, other)
        assert (caught.value.setting, caught.value.value) == ("positive", str(path))
        if path.name != "copy.txt":
            with pytest.raises(SettingError) as caught:
                read_sets(other, path)
            assert (caught.value.setting, caught.value.value) == ("negative", str(path))
    write(tmp_path / "ten.txt", ONE[:10])
    assert len(read_sets(tmp_path / "ten.txt", other).positive) == 10


def test_files_of_one_name_keep_names_apart(tmp_path: Path, other: Path) -> None:
    (tmp_path / "deep").mkdir()
    found = read_sets(write(tmp_path / "deep" / "other.jsonl", list(map(json.dumps, ONE))), other)
    assert (found.positive_name, found.negative_name) == ("other (positive)", "other (negative)")


def test_a_prompt_beyond_the_context_is_named_with_its_line(
    tmp_path: Path, other: Path, checkpoint: Callable[[str], Path]
) -> None:
    subject = Subject.of(str(checkpoint("llama")))
    path = write(tmp_path / "one.txt", [*ONE, "", "ka " * 80])
    with pytest.raises(UserError) as caught:
        encode_sets(subject, read_sets(other, path))
    assert caught.value.setting == "negative"
    n_tokens = len(subject.loaded.tokenizer("ka " * 80)["input_ids"])
    for words in (f"'{path}' line 14", f" {n_tokens} tokens", " 64"):
        assert words in str(caught.value)
    sets = read_sets(write(path, ONE), other)
    ids, _ = encode_sets(subject, sets)
    assert ids == [subject.encode(text) for text in ONE]


def test_a_pair_passes_over_what_no_model_has_room_for(
    checkpoint: Callable[[str], Path],
) -> None:
    subject = Subject.of(str(checkpoint("llama")))
    found = draw_pair("negation", fits=lambda text: "city" not in text)
    assert not any("city" in text for text in (*found.positive, *found.negative))
    assert "left out" in found.notes[0]
    fits = fits_all([subject])
    assert fits("ka lo")
    assert not fits("ka lo " * 64)
    with pytest.raises(SettingError) as caught:
        draw_pair("negation", fits=lambda text: False)
    assert (caught.value.setting, caught.value.value) == ("pair", "negation")
    with pytest.raises(SettingError) as caught:
        draw_pair("nothing")
    assert (caught.value.setting, caught.value.value) == ("pair", "nothing")


def test_models_of_different_tokenizers_are_told(
    tmp_path: Path, other: Path, checkpoint: Callable[[str], Path]
) -> None:
    sets = read_sets(write(tmp_path / "one.txt", ONE), other)
    tiny, same = (Subject.of(str(checkpoint(name))) for name in ("llama", "gpt2"))
    assert tokenizer_note([tiny, same], sets) is None
    assert tokenizer_note([tiny, Subject.of("bundled")], sets) is not None
