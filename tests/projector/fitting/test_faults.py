"""Nothing is lost: fits that are killed, interrupted or out of disk go on to the same bytes."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from projector import Projection, add_layout
from projector.fitting.checkpoint import checkpoint_path, has_checkpoint
from projector.layouts.settings import Layout
from projector.projection.overview import STATISTICS_FILE
from projector.storage.tensors import read_metadata
from tests.projections import contents
from tests.projector.fitting.killing import Fits
from tests.refused import lacking

SIGKILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def fits(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Fits:
    """Of six batches and six maps."""
    arguments = [str(checkpoint("qwen2")), "--corpus", str(text_file), "--device", "cpu"]
    arguments += ["--max-tokens", "1200", "--sequence-length", "30", "--batch-size", "8"]
    return Fits(tmp_path_factory.mktemp("reports"), arguments)


@dataclass(frozen=True)
class Run:
    """A fit that nothing disturbed: its files, and how many moments of the disk it had."""

    files: dict[str, bytes]
    n_moments: int
    n_batches: int


@pytest.fixture(scope="module")
def straight(fits: Fits, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("straight") / "out"
    assert fits.run(out) == 0, fits.said
    report = fits.report
    return Run(contents(out), report["moments"], report["run"])


def finish(fits: Fits, out: Path, *options: str) -> None:
    """What a user does after a kill: the same command, with --resume where there is something."""
    if has_checkpoint(out):
        assert fits.run(out, "--resume", *options) == 0, fits.said
    elif not out.exists():
        assert fits.run(out, *options) == 0, fits.said
    assert not checkpoint_path(out).exists()


def kill_in_writes(fits: Fits, tmp_path: Path, n_kills: int, seed: int, *options: str) -> None:
    """Kill fits at random moments of the disk, over an old projection, and let them go on."""
    old, straight = tmp_path / "old", tmp_path / "straight"
    assert fits.run(old, "--seed", "5", *options) == 0, fits.said
    shutil.copytree(old, straight)
    assert fits.run(straight, "--force", *options) == 0, fits.said
    n_moments, wanted, before = fits.report["moments"], contents(straight), contents(old)
    # Another layout of the same statistics, the old one's files gone.
    assert set(wanted) ^ set(before)
    one, other = (load(files[STATISTICS_FILE]) for files in (wanted, before))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    # One in each stretch of the run, the last of which is the last write.
    bounds = [1 + n_moments * i // n_kills for i in range(n_kills + 1)]
    generator = random.Random(seed)
    for i, (low, high) in enumerate(itertools.pairwise(bounds)):
        out = tmp_path / f"out-{i}"
        shutil.copytree(old, out)
        kill_at = generator.randrange(low, high)
        assert fits.run(out, "--force", *options, kill_at=kill_at) == SIGKILLED, fits.said
        # Whatever was being written: a reader finds the old projection whole, or the new one.
        layouts = list(Projection.load(out).layouts)
        assert contents(out) in (before, wanted), kill_at
        assert layouts[0].endswith("seed5") == (contents(out) == before)
        if contents(out) == before:
            if has_checkpoint(out):
                assert fits.run(out, "--resume", *options) == 0, fits.said
            else:
                assert fits.run(out, "--force", *options) == 0, fits.said
        else:
            finish(fits, out, *options)
        assert contents(out) == wanted, kill_at
        assert not checkpoint_path(out).exists()


def kill_by_the_clock(fits: Fits, straight: Run, tmp_path: Path, n_kills: int, seed: int) -> None:
    """Kill fits at random moments of their work, and let them go on."""
    slow_s = 0.1
    generator = random.Random(seed)
    for i in range(n_kills):
        out = tmp_path / f"by-the-clock-{i}"
        process = fits.start(out, slow_s=slow_s)
        wait_for(lambda out=out: has_checkpoint(out))
        # Five batches and six maps are still to come, each with its pause.
        process.join(generator.uniform(0, 11 * slow_s))
        process.kill()
        process.join()
        assert process.exitcode == SIGKILLED
        finish(fits, out)
        assert contents(out) == straight.files


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_fit_killed_within_a_write_goes_on_to_the_same_bytes(fits: Fits, tmp_path: Path) -> None:
    kill_in_writes(fits, tmp_path, 4, seed=0)


def test_a_fit_killed_at_any_time_goes_on_to_the_same_bytes(
    fits: Fits, straight: Run, tmp_path: Path
) -> None:
    kill_by_the_clock(fits, straight, tmp_path, 2, seed=0)


@pytest.mark.faults
@pytest.mark.parametrize(
    "options",
    [(), ("--correlation", "per-sequence"), ("--solver", "adamw", "--accumulate", "2")],
    ids=lambda options: options[-1] if options else "default",
)
def test_twenty_kills_within_writes(options: tuple[str, ...], fits: Fits, tmp_path: Path) -> None:
    kill_in_writes(fits, tmp_path, 20, 1, *options)


@pytest.mark.faults
def test_twenty_kills_by_the_clock(fits: Fits, straight: Run, tmp_path: Path) -> None:
    kill_by_the_clock(fits, straight, tmp_path, 20, seed=1)


@pytest.mark.parametrize("share", [0.15, 0.5, 0.95])
def test_what_was_done_is_not_done_again(
    share: float, fits: Fits, straight: Run, tmp_path: Path
) -> None:
    """Of six batches, each of which is written, and six maps, each of which is."""
    out = tmp_path / "out"
    assert fits.run(out, kill_at=int(share * straight.n_moments)) == SIGKILLED
    headers = [
        json.loads(read_metadata(path)["checkpoint"])
        for path in checkpoint_path(out).glob("*.safetensors")
    ]
    n_gathered = max(header.get("n_batches", 0) for header in headers)
    n_placed = sum(len(header.get("maps", ())) for header in headers)
    assert n_gathered >= 1
    assert (n_placed > 0) == (share > 0.9)
    assert fits.run(out, "--resume") == 0, fits.said
    # Trials beforehand are in both.
    assert straight.n_batches - fits.report["run"] == n_gathered
    assert fits.report["place_map"] == 6 - n_placed
    assert contents(out) == straight.files


def test_a_fit_killed_twice_goes_on_to_the_same_bytes(
    fits: Fits, straight: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert fits.run(out, kill_at=straight.n_moments // 3) == SIGKILLED
    # A partial file of the first kill is in the way of the second run's.
    assert fits.run(out, "--resume", kill_at=straight.n_moments // 3) == SIGKILLED
    finish(fits, out)
    assert contents(out) == straight.files


def test_a_fit_of_several_layouts_that_is_killed_goes_on_to_the_same_bytes(
    fits: Fits, tmp_path: Path
) -> None:
    """While the model runs, while neurons are placed, and once all is saved."""
    options = ("--sites", "attn_out", "--layouts", "stress-3d,stress-2d,linear-1d")
    straight = tmp_path / "straight"
    assert fits.run(straight, *options) == 0, fits.said
    n_moments, wanted = fits.report["moments"], contents(straight)
    kept = {"layouts/mine-2d.json", "layouts/mine-2d.safetensors"}
    n_saved = 0
    for kill_at in (n_moments // 3, n_moments * 3 // 4, n_moments - 4, n_moments - 1):
        out = tmp_path / f"out-{kill_at}"
        assert fits.run(out, *options, kill_at=kill_at) == SIGKILLED, fits.said
        is_saved = out.exists()
        if is_saved:
            n_saved += has_checkpoint(out)
            add_layout(out, Layout(dim=2, seed=7), name="mine-2d")
        assert fits.run(out, "--resume", *options) == 0, fits.said
        found = contents(out)
        assert {name for name in found if name not in wanted} == (kept if is_saved else set())
        assert {name: found[name] for name in wanted} == wanted, kill_at
        assert not checkpoint_path(out).exists()
    assert n_saved > 0


@pytest.mark.parametrize("stage", ["gathered", "placed"])
def test_ctrl_c_of_the_command_says_how_to_go_on(
    stage: str, fits: Fits, straight: Run, tmp_path: Path
) -> None:
    """While the model runs, and while neurons are placed."""
    out = tmp_path / "out"
    process = fits.start(out, slow_s=0.2)
    wait_for(lambda: any(checkpoint_path(out).glob(f"{stage}*.safetensors")))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(100)
    assert process.exitcode == 130
    assert "--resume" in fits.said
    assert not out.exists()
    finish(fits, out)
    assert contents(out) == straight.files


def test_the_checkpoint_of_another_run_is_refused_with_the_difference(
    fits: Fits, straight: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert fits.run(out, kill_at=straight.n_moments // 2) == SIGKILLED
    for options, names in (
        (("--batch-size", "4"), "--batch-size & 8 & 4"),
        (("--dim", "2"), "--layouts & 'stress-3d,neighbours-2d' & 'stress-2d'"),
        (("--resume", "--max-tokens", "900"), "--max-tokens 1200"),
        (("--max-tokens", "900"), "--max-tokens & 1200 & 900"),
        (("--no-statistics",), "--no-statistics"),
        (("--dtype", "bfloat16"), "--dtype & 'float32' & 'bfloat16'"),
    ):
        assert fits.run(out, "--resume", *options) == 2
        line = fits.said.partition("error:")[2]
        assert lacking(line, out, *names.split(" & ")) == [], fits.said
    finish(fits, out)


def test_the_checkpoint_of_another_model_or_corpus_is_refused(
    fits: Fits, straight: Run, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert fits.run(out, kill_at=straight.n_moments // 2) == SIGKILLED
    model, _, corpus, *rest = fits.arguments
    name, llama = Path(model).name, checkpoint("llama")
    other_model = tmp_path / "model"
    shutil.copytree(checkpoint("qwen2"), other_model)
    config = json.loads((other_model / "config.json").read_text())
    (other_model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    other_corpus = tmp_path / "other.txt"
    # As many tokens as before.
    text = Path(corpus).read_text()
    other_corpus.write_text(text[len(text) // 2 :] + text[: len(text) // 2])
    for arguments, names in (
        ([str(llama), "--corpus", corpus], ["model", f"'{name}'", f"'{llama.name}'"]),
        ([str(other_model), "--corpus", corpus], ["config"]),
        (
            [model, "--corpus", str(other_corpus)],
            ["corpus", f"'{Path(corpus).name}'", "'other.txt'"],
        ),
    ):
        others = Fits(fits.folder, [*arguments, *rest])
        assert others.run(out, "--resume") == 2
        line = others.said.partition("error:")[2]
        assert lacking(line, "--force", *names) == [], others.said
    finish(fits, out)
    assert contents(out) == straight.files


def test_another_projection_is_not_replaced_by_a_resumed_fit(
    fits: Fits, straight: Run, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    assert fits.run(out, kill_at=straight.n_moments // 2) == SIGKILLED
    assert fits.run(other, "--seed", "3") == 0
    shutil.copytree(other, out)
    assert fits.run(out, "--resume") == 2
    assert "add --force" in fits.said
    assert contents(out) == contents(other)
    assert fits.run(out, "--resume", "--force") == 0, fits.said
    assert Projection.load(out).layout().settings.seed == 0


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(
    fits: Fits, straight: Run, tmp_path: Path
) -> None:
    """No file may grow beyond 20 kB: the system itself refuses what the sums take."""
    out = tmp_path / "out"
    assert fits.run(out, kill_at=straight.n_moments // 5) == SIGKILLED
    folder = checkpoint_path(out)
    before = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}
    assert [name for name in before if name.startswith("gathered")]
    assert fits.run(out, "--resume", most_bytes=20_000) == 2
    assert fits.said.count("error:") == 1
    assert f"'{folder}'" in fits.said.partition("error:")[2]
    assert "Traceback" not in fits.said
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert not out.exists()
    finish(fits, out)
    assert contents(out) == straight.files


def test_ctrl_c_on_a_full_disk_says_that_nothing_could_be_kept(
    fits: Fits, straight: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert fits.run(out, kill_at=straight.n_moments // 5) == SIGKILLED
    folder = checkpoint_path(out)
    before = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}
    process = fits.start(out, "--resume", slow_s=1.0, most_bytes=20_000)
    # Into the first batch, after two trials.
    wait_for(lambda: "<run 3>" in fits.said)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(100)
    assert process.exitcode == 2
    assert f"'{folder}'" in fits.said.partition("error:")[2]
    assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == before


def test_what_is_finished_is_left(fits: Fits, straight: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert fits.run(out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert fits.run(out, "--resume") == 0
    assert contents(out) == straight.files
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_what_is_no_checkpoint_is_left_alone(fits: Fits, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for force in ((), ("--force",)):
        mine = checkpoint_path(out) / "weights.bin"
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        assert fits.run(out, *force) == 2
        assert f"'{checkpoint_path(out)}'" in fits.said.partition("error:")[2]
        assert mine.read_text() == "mine"
    shutil.rmtree(mine.parent)
    mine.parent.write_text("a file")
    assert fits.run(out) == 2
    assert f"'{checkpoint_path(out)}'" in fits.said.partition("error:")[2]


def test_two_fits_do_not_write_the_same_checkpoint(
    fits: Fits, straight: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = fits.start(out, slow_s=0.5)
    wait_for(lambda: has_checkpoint(out))
    second = Fits(tmp_path, fits.arguments)
    assert second.run(out, "--force") == 2
    assert f"'{checkpoint_path(out)}'" in second.said.partition("error:")[2]
    first.join(100)
    assert first.exitcode == 0
    assert contents(out) == straight.files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "report", "report.log"]


def test_a_checkpoint_lies_beside_a_folder_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    expected = tmp_path / "here.checkpoint"
    assert checkpoint_path(Path()).resolve() == expected
    monkeypatch.chdir("below")
    assert checkpoint_path(Path("..")).resolve() == expected
    assert checkpoint_path(Path("../../here")).resolve() == expected
