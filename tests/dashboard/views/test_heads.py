"""The Heads page: all heads by kind, one head's pattern and pairs, and one line where there are
none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from dashboard.drawing.text import tints
from dashboard.frame.residual import head_grid, head_pairs, stopping
from dashboard.guest import Guest
from dashboard.prompts import Prompt, read_prompt, store
from dashboard.residual.joined import read_tokens
from dashboard.state.shelf import shelf
from dashboard.state.store import heads_name, stored_heads, stored_prompts
from projector.errors import UserError
from projector.model.architecture.stream.patterns import watch_patterns
from projector.progress import Progress, Silent
from projector.residual.heads.kinds import KINDS, Heads
from projector.residual.heads.scores import score_heads
from projector.residual.subject import Subject
from tests.dashboard.conftest import DECODER, ENCODER, GPT2, Open
from tests.dashboard.pages import cell, errors, grid_of, link, parts_of

Guests = Callable[[str], Guest]
PROMPT = Prompt("kalo mi tenra so", 2)


@pytest.fixture(autouse=True)
def _few_random_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred are what makes a percentile mean something, and take a while."""

    def score(subject: object, **options: object) -> Heads:
        return score_heads(subject, **{**options, "n_random": 4, "length": 8})  # type: ignore[arg-type]

    monkeypatch.setattr(head_grid, "score_heads", score)


@pytest.fixture
def prompt(start: Open) -> str:
    return store(PROMPT, stored_prompts())


@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_all_heads_are_scored_once_and_kept(
    family: str, open_page: Open, guest: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = open_page("heads", projection=family, head=1)
    assert errors(at) == []
    grid = grid_of(at)
    blocks = guest(family).subject.layout.blocks
    assert grid["rows"] == [f"layer {k}" for k in range(len(blocks))][::-1]
    assert len(grid["columns"]) == blocks[0].n_heads
    # The link's layer is 1.
    assert grid["selected"] == [len(blocks) - 2, 1]
    tip = cell(grid, len(blocks) - 2, 1)[2]
    assert tip.startswith("L1 H1")
    for kind in KINDS:
        assert f"{kind.title}\t" in tip
    assert "of random" in tip
    (said,) = [each.value for each in at.caption if each.value.startswith("Heads found")]
    # So few random heads tell no kind, and that is said.
    assert "induction 0;" in said

    def fail(subject: object, **options: object) -> Heads:
        raise AssertionError("scored again")

    # What is on disk is enough for another run of the app.
    monkeypatch.setattr(head_grid, "score_heads", fail)
    shelf().forget("heads")
    at = open_page("heads", projection=family, head=1)
    assert errors(at) == []
    assert grid_of(at) == grid
    # By a score: numbers stand in the cells.
    at.segmented_control(key="heads color").set_value("induction").run()
    assert 0 <= float(cell(grid_of(at), 0, 0)[0]) <= 1


def test_a_damaged_file_is_computed_again(open_page: Open, guest: Guests) -> None:
    folder, name = stored_heads(), heads_name(guest(DECODER).loaded.weights_sha256)
    with folder.writing(name) as path:
        path.write_text('{"version": 2, "heads": {"rows": 3}}', encoding="utf-8")
    at = open_page("heads")
    assert errors(at) == []
    assert grid_of(at)["rows"]
    found = folder.find(name)
    assert found is not None
    assert '"n_random": 4' in found.read_text(encoding="utf-8")


@pytest.mark.parametrize("family", [DECODER, ENCODER])
def test_the_pattern_is_the_model_s_own(
    family: str, open_page: Open, prompt: str, guest: Guests
) -> None:
    at = open_page("heads", projection=family, head=1, prompt=prompt, token=2)
    assert errors(at) == []
    found = guest(family)
    ids = read_prompt(found, PROMPT).ids
    patterns: dict[int, torch.Tensor] = {}
    watch_patterns(
        found.loaded.model,
        found.architecture,
        found.subject.inputs(ids),
        lambda layer, pattern: patterns.__setitem__(layer, pattern[0].float()),
    )
    expected = patterns[1][1][2].numpy()
    (text,) = parts_of(at, "tokens")
    assert text["selected"] == 2
    shown = [float(tip.split(": ")[1].removesuffix(" %")) / 100 for _, _, tip in text["tokens"]]
    assert np.allclose(shown, expected, atol=0.01)
    # Colours have the matrix's scale, 0 to 1, whatever the row's largest share.
    assert [fill for _, fill, _ in text["tokens"]] == tints(
        patterns[1][1][2].half().float().numpy()
    )
    # The other way round: who attends to it.
    at.segmented_control(key="attention way").set_value("to").run()
    (text,) = parts_of(at, "tokens")
    shown = [float(tip.split(": ")[1].removesuffix(" %")) / 100 for _, _, tip in text["tokens"]]
    assert np.allclose(shown, patterns[1][1][:, 2].numpy(), atol=0.01)


def test_a_head_s_pairs_stand_beside_their_control(open_page: Open, guest: Guests) -> None:
    at = open_page("heads", head=0, layer=0)
    assert errors(at) == []
    shown = [each.value for each in at.markdown]
    assert any(text.startswith("**OV") for text in shown)
    assert any(text.startswith("**QK") for text in shown)
    said = [each.value for each in at.caption if "rotated at random" in each.value]
    assert len(said) == 2
    # Random weights join nothing.
    assert any("chance" in text for text in shown)
    heads = guest(DECODER).subject.attentions[0]
    assert not isinstance(heads, str)
    captions = " ".join(each.value.replace("\\", "") for each in at.caption)
    assert all(name in captions for name in heads.left_out)


def test_heads_of_a_layer_share_what_they_read_and_work_can_be_stopped(
    open_page: Open, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, int] = {}
    read: list[int] = []

    class Told(Silent):
        def __init__(self, title: str) -> None:
            self.title = title

        def advance(self, n: int) -> None:
            told[self.title] = told.get(self.title, 0) + n

    @contextmanager
    def working(title: str, on_stop: object) -> Iterator[Told]:
        yield Told(title)

    def counted(subject: Subject, layer: int, progress: Progress) -> dict[int, torch.Tensor]:
        read.append(layer)
        return read_tokens(subject, layer, progress)

    monkeypatch.setattr(stopping, "working", working)
    monkeypatch.setattr(head_pairs, "read_tokens", counted)
    at = open_page("heads", head=0, prompt=prompt)
    assert errors(at) == []
    assert told["Find its pairs"] > 8
    # Each layer up to this one is a sign of life.
    assert told["Run the prompt"] == 2
    at = open_page("heads", head=1, prompt=prompt)
    assert errors(at) == []
    assert read == [1]


def test_an_encoder_has_heads_and_no_kinds(open_page: Open) -> None:
    at = open_page("heads", projection=ENCODER, head=1)
    assert errors(at) == []
    said = " ".join(each.value for each in [*at.caption, *at.info])
    assert "both directions" in said
    assert len(grid_of(at)["rows"]) >= 2


def test_a_model_whose_heads_are_not_known_says_so(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(subject: object, **options: object) -> Heads:
        raise UserError("no heads: reason 7")

    monkeypatch.setattr(head_grid, "score_heads", fail)
    at = open_page("heads")
    assert errors(at) == []
    assert any("reason 7" in each.value for each in at.caption)


def test_a_head_that_is_not_there_is_said(open_page: Open, prompt: str) -> None:
    at = open_page("heads", head=999, prompt=prompt)
    assert errors(at) == []
    assert any("head 999" in each.value for each in at.warning)
    assert "head" not in link(at)
    assert any("Click a head" in each.value for each in at.info)


def test_a_head_that_is_not_there_is_said_where_scoring_was_stopped(
    open_page: Open, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_grid, "unless_stopped", lambda *_: None)
    at = open_page("heads", head=999, prompt=prompt)
    assert errors(at) == []
    assert any("head 999" in each.value for each in at.warning)
    assert "head" not in link(at)


def test_a_model_that_can_not_be_loaded_is_said_once(
    copied: Callable[..., Path], start: Open, prompt: str
) -> None:
    own = copied(DECODER)
    at = start(own, "heads", projection=DECODER, layer=1, head=1, prompt=prompt).run()
    assert len(errors(at)) == 1


def test_heads_are_ablated_beside_random_ones(open_page: Open, prompt: str, root: Path) -> None:
    at = open_page("heads", head=1, layer=1, prompt=prompt)
    at.text_input(key="heads to ablate").set_value("L0 H1").run()
    at.text_input(key="ablation text").set_value(str(root / "unseen.txt"))
    at.button(key="ablate").click().run()
    assert errors(at) == []
    table = at.dataframe[0].value
    assert table["model"][1] == "without L0 H1, L1 H1"
    assert sum("2 random heads" in name for name in table["model"]) == 3
    # What was found stays in sight when something else is chosen.
    at.segmented_control(key="attention way").set_value("to").run()
    assert [each.proto.expanded for each in at.expander if "Ablate" in each.label] == [True]
    # Another link, or the other page, names the same heads: nothing is computed again.
    at = open_page("lens", head=1, layer=1, prompt=prompt)
    at.text_input(key="heads to ablate").set_value("L0 H1")
    at.text_input(key="ablation text").set_value(str(root / "unseen.txt")).run()
    assert list(at.dataframe[0].value["model"]) == list(table["model"])
    at.text_input(key="heads to ablate").set_value("L0 H99").run()
    at.button(key="ablate").click().run()
    assert any("99" in problem for problem in errors(at))
    for text in ("all of them", "L1 H1L0 H0"):
        at.text_input(key="heads to ablate").set_value(text).run()
        assert any("L1 H3, L4 H0" in problem for problem in errors(at))
