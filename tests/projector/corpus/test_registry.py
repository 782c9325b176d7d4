"""A kind of source that is registered serves commands, help, artifacts and pages as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dashboard.state.settings import Settings
from projector.corpus.documents import Document, hash_corpus
from projector.corpus.reader import Reader
from projector.corpus.sources import (
    READERS,
    find_source,
    open_text,
    read_documents,
    register,
    sources_help,
    sources_hint,
)
from projector.errors import UserError
from projector.terminal.cli import app as projector_app
from pruning import saving
from pruning.methods.plan import PLAN_FILE
from pruning.preparing import check_unseen
from pruning.terminal.cli import app as pruning_app
from tests.conftest import make_text
from tests.refused import lacking, refused_naming

Checkpoint = Callable[[str], Path]


def _fake(rest: str) -> Iterator[Document]:
    if not rest.isdecimal():
        raise UserError(f"there is no fake text '{rest}'")
    return (make_text(200, seed=100 * int(rest) + i) for i in range(12))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Reader("fake", form="fake:SEED", example="fake:SEED", read=_fake)
    # Taken out again after the test.
    monkeypatch.setitem(READERS, "fake", fake)
    register(fake)
    monkeypatch.setenv("COLUMNS", "200")


def run(app: object, *args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args])  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_is_found_by_its_prefix() -> None:
    source = find_source("fake:3")
    assert (source.name, source.is_stream, source.local_path) == ("fake:3", False, None)
    assert list(read_documents("fake:3")) == list(_fake("3"))
    assert open_text("fake:3").name == "fake:3"
    with refused_naming("'x'"):
        read_documents("fake:x")


def test_without_its_prefix_a_source_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_source("fake.txt").reader is READERS[""]
    monkeypatch.delitem(READERS, "fake")
    with refused_naming("'fake:3'", "stdlib", "hf:NAME"):
        read_documents("fake:3")


def test_texts_are_the_same_by_their_documents_or_a_stream_s_name() -> None:
    sha256 = hash_corpus(_fake("3"))
    assert find_source("fake:3").is_of("another name", sha256)
    assert not find_source("fake:4").is_of("fake:3", sha256)
    # Not read: it may be read in part.
    assert find_source("hf:some/name").is_of("hf:some/name", "")
    assert not find_source("hf:some/name").is_of("hf:some/other", "")


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("stdlib:heldout", None),
        ("made-up.txt", "made-up.txt"),
        ("hf:some/name:config", None),
        ("hf:/etc:config", "/etc"),
        ("hf:../some/name", "../some/name"),
    ],
)
def test_what_is_read_of_this_machine(source: str, path: str | None) -> None:
    assert find_source(source).local_path == path


def test_help_and_hints_tell_it() -> None:
    assert sources_help().endswith(", or fake:SEED")
    assert lacking(sources_hint(), "stdlib", "hf:NAME", "fake:SEED") == []
    for app, command in ((projector_app, "fit"), (pruning_app, "perplexity")):
        shown = re.sub(r"\x1b\[[0-9;]*m", "", run(app, command, "--help"))
        assert "fake:SEED" in shown
    with refused_naming("'nowhere.txt'", "fake:SEED"):
        read_documents("nowhere.txt")


def test_a_page_may_read_it(tmp_path: Path) -> None:
    assert Settings((tmp_path,)).text_source("fake:3") == "fake:3"
    # A command that takes a list would take it for two.
    with refused_naming("'fake:3,fake:4'"):
        Settings((tmp_path,)).text_source("fake:3,fake:4")


def test_commands_take_it_and_artifacts_name_it(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out, pruned = checkpoint("qwen2"), tmp_path / "map", tmp_path / "pruned"
    run(projector_app, "fit", model, "--corpus", "fake:1", "--out", out, "--sites", "mlp_post")
    corpus = json.loads((out / "projection.json").read_text(encoding="utf-8"))["corpus"]
    assert (corpus["source"], corpus["sha256"]) == ("fake:1", hash_corpus(_fake("1")))
    check_unseen(out, ["fake:2"])
    with refused_naming(out, "'fake:1'"):
        check_unseen(out, ["fake:1"])

    scored = json.loads(run(pruning_app, "perplexity", model, "--corpus", "fake:2", "--json"))
    assert scored["corpus"] == "fake:2"
    # Not loaded again in a fresh process, which takes seconds.
    monkeypatch.setattr(saving, "_compare", lambda *args, **options: (0.0, False))
    options = ("--method", "wanda", "--refit", "none", "--sequence-length", 32, "--sequences", 8)
    run(pruning_app, "prune", model, "--calibration", "fake:1", "--out", pruned, *options)
    facts = json.loads((pruned / PLAN_FILE).read_text(encoding="utf-8"))
    assert "fake:1" in json.dumps(facts)
