"""One command line again and again: a fit that is begun, resumed, left as it is, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import projector
from projector import Projection
from projector.errors import UserError
from projector.figures.html import write_pictures
from projector.fitting.checkpoint import checkpoint_path, has_checkpoint
from projector.fitting.pipeline import run
from projector.fitting.preparing import Job, prepare
from projector.fitting.processes import Processes
from projector.fitting.provenance import run_facts, settings_facts
from projector.fitting.settings import FitSettings
from projector.layouts.settings import Layout
from projector.projection.overview import read_saved
from projector.settings import MAY_DIFFER, setting
from projector.storage.additions import adding
from projector.storage.resuming import told_difference
from tests.conftest import make_text
from tests.refused import lacking, refused

SETTINGS: dict[str, Any] = {
    "sites": ["attn_out"],
    "layers": [0],
    "max_tokens": 400,
    "keep_statistics": False,
}
# Of one layout.
OPTIONS = {**SETTINGS, "dim": 3}


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file, and when it was written."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def arguments(checkpoint: Callable[[str], Path], text_file: Path) -> tuple[str, str]:
    return str(checkpoint("qwen2")), str(text_file)


@pytest.fixture(scope="module")
def job(arguments: tuple[str, str]) -> Job:
    settings = FitSettings(sites=("attn_out",), layers=(0,), max_tokens=400)
    return prepare(*arguments, settings, Layout())


# What tells a run from another


def test_every_setting_is_compared_or_says_that_it_may_differ(job: Job) -> None:
    facts = run_facts(job, 1)
    for each in fields(FitSettings):
        assert (each.name in facts) != bool(each.metadata.get(MAY_DIFFER)), each.name
    (layout,) = facts["layout"].values()
    for each in fields(Layout):
        assert (each.name in layout) != bool(each.metadata.get(MAY_DIFFER)), each.name


@dataclass(frozen=True)
class MoreSettings(FitSettings):
    added: int = setting(0)
    told: int = setting(0, may_differ=True)


@dataclass(frozen=True)
class MoreLayout(Layout):
    added: float = setting(0.0)


def test_an_added_setting_is_seen_by_the_resume_check(job: Job) -> None:
    one = replace(job, settings=MoreSettings(**SETTINGS, added=1))
    other = replace(job, settings=MoreSettings(**SETTINGS, added=2))
    difference = told_difference(run_facts(one, 1), run_facts(other, 1))
    assert difference is not None
    assert lacking(difference, "added", 1, 2) == []
    one = replace(job, layouts=(MoreLayout(added=0.5),))
    other = replace(job, layouts=(MoreLayout(added=0.25),))
    assert told_difference(run_facts(one, 1), run_facts(other, 1)) is not None


def test_a_setting_that_may_differ_makes_no_other_run(job: Job) -> None:
    one = replace(job, settings=MoreSettings(**SETTINGS, told=1))
    other = replace(job, settings=MoreSettings(**SETTINGS, told=2))
    assert run_facts(one, 1) == run_facts(other, 1)


def test_what_was_left_open_is_compared_by_what_it_came_to(job: Job) -> None:
    spelled = replace(
        job,
        settings=replace(
            job.settings,
            sequence_length=job.sequence_length,
            packed=job.packed,
            skip_first=job.corpus.skip_first,
        ),
    )
    assert settings_facts(spelled) == settings_facts(job)


# One command line again and again


def test_a_queue_may_start_one_fit_again_and_again(
    arguments: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    # Nothing is there: it is begun.
    projector.fit(*arguments, out=out, resume=True, **OPTIONS)
    projector.fit(*arguments, out=tmp_path / "plain", **OPTIONS)
    assert {name: text for name, (text, _) in tree(out).items()} == {
        name: text for name, (text, _) in tree(tmp_path / "plain").items()
    }
    # It is finished: nothing is done, whether another one might be replaced or not.
    before = tree(tmp_path)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished fit is fitted again")

    monkeypatch.setattr("projector.fitting.pipeline.RunningFit", never)
    for force in (False, True):
        found = projector.fit(*arguments, out=out, resume=True, force=force, **OPTIONS)
        assert found.maps == [(0, "attn_out")]
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"batch_size": 8}, ("batch_size", 16, 8)),
        ({"dim": 2}, ("dim", 3, 2)),
        ({"max_tokens": 500}, ("max_tokens", 400, 500)),
        ({"layouts": "stress-3d,stress-2d"}, ("layouts", "'stress-3d'", "'stress-3d,s")),
        ({"keep_statistics": True}, ("keep_statistics=False", "keep_statistics=True")),
    ],
)
def test_what_another_fit_finished_is_refused_by_the_difference(
    arguments: tuple[str, str], finished: Path, changed: dict[str, Any], names: tuple[object, ...]
) -> None:
    before = tree(finished.parent)
    options = {**OPTIONS, **changed}
    if "layouts" in changed:
        del options["dim"]
    with refused("resume", True, finished, *names):
        projector.fit(*arguments, out=finished, resume=True, **options)
    assert tree(finished.parent) == before


@pytest.fixture
def finished(arguments: tuple[str, str], tmp_path: Path) -> Path:
    projector.fit(*arguments, out=tmp_path / "out", **OPTIONS)
    return tmp_path / "out"


def test_another_model_or_corpus_is_named(
    arguments: tuple[str, str], finished: Path, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "other.txt").write_text(make_text(3000, seed=1), encoding="utf-8")
    with refused("resume", True, finished, "corpus", "'made-up.txt'", "'other.txt'"):
        projector.fit(
            arguments[0], str(tmp_path / "other.txt"), out=finished, resume=True, **OPTIONS
        )
    with refused("resume", True, finished, "model", "'qwen2'", "'llama'"):
        projector.fit(str(checkpoint("llama")), arguments[1], out=finished, resume=True, **OPTIONS)


def test_both_start_over_what_another_fit_finished_or_left(
    arguments: tuple[str, str], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write_pictures(Projection.load(finished), finished)
    with monkeypatch.context() as patch:
        patch.setattr("projector.fitting.running.place_map", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            projector.fit(*arguments, out=finished, force=True, **OPTIONS, seed=1)
    assert checkpoint_path(finished).exists()
    with refused("resume", True, "seed", 1, 2):
        projector.fit(*arguments, out=finished, resume=True, **OPTIONS, seed=2)
    projector.fit(*arguments, out=finished, resume=True, force=True, **OPTIONS, seed=2)
    assert not checkpoint_path(finished).exists()
    assert list(read_saved(finished).layouts) == ["stress-3d-seed2"]
    # Its pictures are not this one's.
    assert not list(finished.glob("*.html"))


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_of_an_older_projection_the_settings_are_not_known(
    arguments: tuple[str, str], tmp_path: Path
) -> None:
    made = projector.fit(*arguments, **OPTIONS)
    replace(made, facts=replace(made.facts, run=None)).save(tmp_path / "old")
    with refused("resume", True, tmp_path / "old"):
        projector.fit(*arguments, out=tmp_path / "old", resume=True, **OPTIONS)


def test_a_relayout_is_no_finished_fit(arguments: tuple[str, str], tmp_path: Path) -> None:
    options = {**OPTIONS, "keep_statistics": True}
    made = projector.fit(*arguments, **options)
    projector.relayout(made, Layout(dim=2)).save(tmp_path / "other")
    with refused("resume", True, tmp_path / "other"):
        projector.fit(*arguments, out=tmp_path / "other", resume=True, **{**options, "dim": 2})


# What is added to a fit between a kill and its end


def kept_at_the_end(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Projection]:
    """``projector.fit``, killed when all is saved and the checkpoint is not removed yet."""

    def fit(*arguments: Any, **options: Any) -> Projection:
        save = Projection.save

        def save_and_die(self: Projection, *where: Any, **how: Any) -> None:
            save(self, *where, **how)
            raise _Killed

        with monkeypatch.context() as patch:
            patch.setattr("projector.fitting.running._CHECKPOINT_EVERY_S", 0.0)
            patch.setattr("projector.fitting.running._CHECKPOINT_SHARE", float("inf"))
            patch.setattr(Projection, "save", save_and_die)
            with pytest.raises(_Killed):
                projector.fit(*arguments, **options)
        return Projection.load(options["out"])

    return fit


class _Killed(BaseException):
    pass


def test_what_was_added_before_a_killed_fit_is_gone_on_with_stays(
    arguments: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", {**OPTIONS, "keep_statistics": True, "force": True}
    kept_at_the_end(monkeypatch)(*arguments, out=out, **options)
    assert has_checkpoint(out)
    projector.add_layout(out, Layout(dim=2))
    with adding(out) as addition:
        addition.write("poles/mine.json", "{}")
    write_pictures(Projection.load(out), out)
    before = tree(out)
    for resume in ({"resume": True}, {"resume": True, "force": True}):
        made = projector.fit(*arguments, out=out, **(options | {"force": False} | resume))
        assert list(made.layouts) == ["stress-3d", "stress-2d"]
        assert tree(out) == before
        assert not has_checkpoint(out)


@pytest.mark.parametrize("is_left", [False, True], ids=["finished", "with a checkpoint"])
@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_fit_is_finished_only_while_its_layouts_are_there(
    change: str,
    is_left: bool,
    arguments: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, options = tmp_path / "out", {**OPTIONS, "keep_statistics": True}
    del options["dim"]
    options["layouts"] = "stress-3d,stress-2d"
    fit = kept_at_the_end(monkeypatch) if is_left else projector.fit
    fit(*arguments, out=out, **options)
    told = "layout 'stress-2d' was replaced: its seed is 7, and this one's 0"
    if change == "removed":
        told = "it lacks layout 'stress-2d'"
        for path in (out / "layouts").glob("stress-2d.*"):
            path.unlink()
    else:
        projector.add_layout(out, Layout(dim=2, seed=7), name="stress-2d", force=True)
    before = tree(out)
    with pytest.raises(UserError) as refused:
        projector.fit(*arguments, out=out, resume=True, **options)
    assert told in str(refused.value)
    assert tree(out) == before
    made = projector.fit(*arguments, out=out, resume=True, force=True, **options)
    assert made.layout("stress-2d").settings.seed == 0


def test_what_a_stopped_fit_left_is_told_before_the_model_is_loaded(
    arguments: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_at_the_end(monkeypatch)(*arguments, out=tmp_path / "other", **OPTIONS)
    out = tmp_path / "out"
    checkpoint_path(tmp_path / "other").rename(checkpoint_path(out))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("projector.fitting.pipeline.prepare", never)
    with pytest.raises(UserError) as refused:
        projector.fit(*arguments, out=out, **OPTIONS)
    assert (refused.value.setting, refused.value.value) == ("resume", False)


def test_of_several_processes_the_first_alone_reads_what_is_finished(
    arguments: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FitSettings(sites=("attn_out",), layers=(0,), max_tokens=400)
    job, told = prepare(*arguments, settings), []

    class First(Processes):
        def of_the_first(self, value: Any) -> Any:
            told.append(value)
            return value

    class Second(Processes):
        def of_the_first(self, value: Any) -> Any:
            return told.pop(0)

    made = run(job, out=tmp_path / "out")
    first = run(job, out=tmp_path / "out", resume=True, processes=First(2, 0))
    assert first.has_statistics
    monkeypatch.setattr(Projection, "load", None)
    # On a machine of its own there is no such folder.
    second = run(job, out=tmp_path / "nowhere", resume=True, processes=Second(2, 1))
    assert not told
    assert second.facts == made.facts
    assert torch.equal(second.positions(0, "attn_out"), made.positions(0, "attn_out"))
    assert not second.has_statistics
