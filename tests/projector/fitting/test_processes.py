"""One fit in several processes: what they find is what one finds, and none waits for the dead."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from typer.testing import CliRunner

import projector
from projector import Projection
from projector.fitting.checkpoint import checkpoint_path, has_checkpoint
from projector.fitting.processes import Processes
from projector.fitting.running import _rounds
from projector.memory import free_memory
from projector.model.loading import choose_device
from projector.statistics.gathering import HalfStatistics
from projector.terminal.cli import app
from tests.projections import contents
from tests.projector.fitting.forked import start
from tests.refused import lacking

# Each batch is one sequence of at most 50 tokens: five, and the last is short.
OPTIONS = ("--max-tokens", "220", "--sequence-length", "50", "--batch-size", "1")


class Group:
    """Processes that find each other as those of a launcher do."""

    def __init__(self, n: int, *arguments: object, code: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        command = ["fit", *(str(a) for a in arguments), "--device", "cpu"]
        started = [
            start(
                Path(self.folder.name),
                command,
                code,
                {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
                | {"LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1"}
                | {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
                | {"ACCELERATE_USE_CPU": "true"},
                str(rank),
            )
            for rank in range(n)
        ]
        self.members = [process for process, _ in started]
        self.ends = [end for _, end in started]

    def end(self) -> list[tuple[int, str, str]]:
        """Exit status, output and errors of each."""
        with self.folder:
            return [end() for end in self.ends]


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and "it/s]" not in line]


def assert_alike(one: Path, many: Path) -> None:
    a, b = Projection.load(one), Projection.load(many)
    assert a.maps == b.maps
    for key in a.maps:
        for matrix in ("covariance", "correlation", "mean"):
            first, second = (getattr(p, matrix)(*key) for p in (a, b))
            torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-6, equal_nan=True)
        # What decides the map is equal but for rounding; the figures tell of it alike.
        for name, value in a.figures(*key).items():
            if isinstance(value, int):
                assert b.figures(*key)[name] == value, name
        assert a.figures(*key)["stress"] == pytest.approx(b.figures(*key)["stress"], rel=0.02)
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in many.iterdir())
    # Whoever saw a token, the same ones are shown.
    assert a.example_facts == b.example_facts
    for name, tensor in a.example_tensors.items():
        assert torch.equal(tensor, b.example_tensors[name]), name
    assert replace(a.facts, maps={}) == replace(b.facts, maps={})


def fit_by(n: int, model: Path, text_file: Path, out: Path, *more: str) -> Path:
    found = Group(n, model, "--corpus", text_file, *OPTIONS, *more, "--out", out).end()
    assert [status for status, _, _ in found] == [0] * n, found
    assert "Wrote" in found[0][1]
    # The first alone speaks.
    assert all(not lines(output + errors) for _, output, errors in found[1:]), found
    assert not has_checkpoint(out)
    return out


@pytest.fixture(scope="module")
def of_two(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What two processes find in five batches."""
    out = tmp_path_factory.mktemp("of-two") / "out"
    return fit_by(2, checkpoint("qwen2"), text_file, out)


def fit_alone(model: Path, text_file: Path, out: Path, **options: Any) -> Path:
    options = {"max_tokens": 220, "sequence_length": 50, "batch_size": 1, **options}
    projector.fit(str(model), str(text_file), device="cpu", out=out, **options)
    return out


def test_two_processes_find_what_one_finds(
    checkpoint: Callable[[str], Path], text_file: Path, of_two: Path, tmp_path: Path
) -> None:
    assert_alike(fit_alone(checkpoint("qwen2"), text_file, tmp_path / "one"), of_two)


def test_two_processes_find_what_one_finds_in_every_layout(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    model, names = checkpoint("qwen2"), ["stress-3d", "stress-2d", "linear-1d"]
    more = ("--sites", "attn_out", "--layouts", ",".join(names))
    many = fit_by(2, model, text_file, tmp_path / "many", *more)
    one = fit_alone(model, text_file, tmp_path / "one", sites=["attn_out"], layouts=names)
    assert_alike(one, many)
    a, b = Projection.load(one), Projection.load(many)
    assert list(a.layouts) == list(b.layouts) == names
    for name in names:
        assert a.layout(name).settings == b.layout(name).settings
        for key in a.maps:
            first, second = (p.positions(*key, name) for p in (a, b))
            assert first.shape == second.shape
            assert torch.equal(first.isfinite(), second.isfinite())
    cost, same = (p.figures(*a.maps[0], "linear-1d")["arrangement_cost"] for p in (a, b))
    assert cost == pytest.approx(same, rel=0.02)


def test_three_processes_find_what_one_finds_in_each_sequence(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    model, mode = checkpoint("qwen2"), "per-sequence"
    many = fit_by(3, model, text_file, tmp_path / "many", "--correlation", mode)
    assert_alike(fit_alone(model, text_file, tmp_path / "one", correlation=mode), many)


def test_one_of_two_processes_may_have_nothing_to_read(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    model = checkpoint("qwen2")
    many = fit_by(2, model, text_file, tmp_path / "many", "--batch-size", "8")
    assert_alike(fit_alone(model, text_file, tmp_path / "one", batch_size=8), many)


# A checkpoint after every batch and every map.
KEEPS_ALL = """
import os, signal, time
import projector.fitting.running, projector.statistics.gathering
projector.fitting.running._CHECKPOINT_EVERY_S = 0.0
projector.fitting.running._CHECKPOINT_SHARE = float("inf")
"""
# Ends the second process at its ``moment``-th call of ``name``.
DIES = """
{name} = {owner}.{name}
n_calls = 0
def dying(*args, **options):
    global n_calls
    n_calls += 1
    if os.environ["RANK"] == "1" and n_calls == {moment}:
        os.kill(os.getpid(), signal.SIGKILL)
    return {name}(*args, **options)
{owner}.{name} = dying
"""
# After two of a trial.
IN_ITS_FIRST_BATCH = DIES.format(
    owner="projector.statistics.gathering.Gatherer", name="run", moment=3
)
WHILE_PLACING = DIES.format(owner="projector.fitting.running", name="place_map", moment=2)


@pytest.mark.parametrize(
    ("dies", "left"),
    [
        (IN_ITS_FIRST_BATCH, ["gathered-0"]),
        (WHILE_PLACING, ["gathered-0", "gathered-1", "placed-00000"]),
    ],
    ids=["reading", "placing"],
)
def test_the_death_of_one_ends_the_others_with_one_line_and_all_go_on(
    dies: str,
    left: list[str],
    checkpoint: Callable[[str], Path],
    text_file: Path,
    of_two: Path,
    tmp_path: Path,
) -> None:
    arguments = (checkpoint("qwen2"), "--corpus", text_file, *OPTIONS, "--out")
    out = tmp_path / "out"
    began = time.monotonic()
    first, second = Group(2, *arguments, out, code=KEEPS_ALL + dies).end()
    assert time.monotonic() - began < 200
    assert second[0] == -signal.SIGKILL
    assert first[0] == 2
    told = [line for line in lines(first[2]) if "error" in line]
    assert len(told) == 1, first
    assert lacking(told[0], "process", "--resume") == []
    assert "Traceback" not in first[2]
    assert not out.exists()
    # Of each what it had done.
    assert sorted(path.stem for path in checkpoint_path(out).iterdir()) == left
    # One alone can't go on with what two began.
    alone = Group(1, *arguments, out, "--resume").end()[0]
    assert alone[0] == 2
    assert lacking(alone[2].partition("error:")[2], "processes", 2, 1) == []
    assert_goes_on((*arguments, out), of_two)


def assert_goes_on(arguments: tuple[object, ...], of_two: Path) -> None:
    """To the bytes of two processes that nothing stopped."""
    assert [status for status, _, _ in Group(2, *arguments, "--resume").end()] == [0, 0]
    out = Path(str(arguments[-1]))
    assert contents(out) == contents(of_two)
    assert not has_checkpoint(out)


SLOW = """
run = projector.statistics.gathering.Gatherer.run
def slow(*args):
    run(*args)
    time.sleep(2)
projector.statistics.gathering.Gatherer.run = slow
"""


def test_ctrl_c_stops_all_and_all_go_on(
    checkpoint: Callable[[str], Path], text_file: Path, of_two: Path, tmp_path: Path
) -> None:
    """A terminal's Ctrl-C reaches every process of it."""
    out = tmp_path / "out"
    arguments = (checkpoint("qwen2"), "--corpus", text_file, *OPTIONS, "--out", out)
    group = Group(2, *arguments, code=KEEPS_ALL + SLOW)
    deadline = time.monotonic() + 200
    while len(list(checkpoint_path(out).glob("gathered*.safetensors"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for member in group.members:
        assert member.pid is not None
        os.kill(member.pid, signal.SIGINT)
    first, second = group.end()
    assert first[0] == second[0] == 130, (first, second)
    assert "--resume" in first[2]
    assert "Traceback" not in first[2] + second[2]
    assert not out.exists()
    assert_goes_on(arguments, of_two)


# No room for the matrix of one map.
SAMPLES = """
import projector.fitting.preparing, projector.fitting.budget
def plan(needs, widths, *_, **__):
    return projector.fitting.budget.Plan(0, (tuple(widths),), {(0, "mlp_post"): 90}, 0, 0)
projector.fitting.preparing.plan_fit = plan
"""


def test_a_sample_drawn_by_two_processes_is_that_of_one(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    found = []
    for n in (1, 2):
        out = tmp_path / f"of-{n}"
        arguments = (checkpoint("qwen2"), "--corpus", text_file, *OPTIONS, "--out", out)
        ended = Group(n, *arguments, code=SAMPLES).end()
        assert [status for status, _, _ in ended] == [0] * n, ended
        found.append(Projection.load(out))
    two = found[1]
    assert not two.has_statistics_of(0, "mlp_post")
    assert two.has_statistics_of(0, "mlp_out")
    figures, same = (p.figures(0, "mlp_post") for p in found)
    assert figures["sample"] == pytest.approx(same["sample"], rel=1e-4)
    assert figures["sample"]["n_tokens"] == 90
    for name in ("stress", "correlation_stability"):
        assert figures[name] == pytest.approx(same[name], rel=1e-3), name


def test_accelerate_launches_it(
    checkpoint: Callable[[str], Path], text_file: Path, of_two: Path, tmp_path: Path
) -> None:
    """By the command of many GPUs, in as many processes on the CPU where there is none."""
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0", "--tee", "3"]
    launch += ["--log_dir", str(tmp_path / "logs"), "-m", "projector", "fit", "--device", "cpu"]
    command = [*launch, str(checkpoint("qwen2")), "--corpus", str(text_file), *OPTIONS, "--json"]
    found = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    assert_alike(of_two, tmp_path / "out")
    said = {path.parent.name: path.read_text() for path in tmp_path.rglob("stdout.log")}
    assert sorted(said) == ["0", "1"]
    assert '"projection"' in said["0"]
    assert said["1"] == ""


@pytest.mark.parametrize(
    ("more", "words"),
    [(("--solver", "adamw"), "one process"), (("--device-map", "auto"), "--device-map")],
)
def test_what_can_not_be_shared_out_is_refused(
    more: tuple[str, ...],
    words: str,
    checkpoint: Callable[[str], Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As the first of two.
    monkeypatch.setattr(
        "projector.fitting.processes.join_processes", lambda device: Processes(2, 0)
    )
    arguments = [checkpoint("qwen2"), "--corpus", text_file, *OPTIONS, "--out", tmp_path / "out"]
    found = CliRunner().invoke(app, ["fit", *(str(a) for a in arguments), *more])
    assert found.exit_code == 2
    assert words in found.stderr
    assert "Traceback" not in found.stderr


def test_every_map_is_placed_once_and_by_turns() -> None:
    widths = {(layer, site): n for layer in range(3) for site, n in (("a", 10), ("b", 40))}
    for n in (1, 2, 4, 7):
        rounds = _rounds(widths, list(widths), n)
        assert sorted(key for keys in rounds for key in keys) == sorted(widths)
        assert max(map(len, rounds)) <= n
    assert _rounds(widths, list(widths), 1) == [[key] for key in widths]
    # Maps of one round are of one size, as far as that goes.
    assert [[widths[key] for key in keys] for keys in _rounds(widths, list(widths), 3)] == [
        [40, 40, 40],
        [10, 10, 10],
    ]


class WithOne:
    """Two processes, as the first sees it; ``other`` is what the second has."""

    def __init__(self, other: HalfStatistics) -> None:
        covariance = other.covariance
        counts = torch.tensor([covariance.n_tokens, covariance.n_left_out])
        self.stacks = iter([counts, covariance.mean, covariance.least, covariance.greatest])
        self.sums = iter([None, covariance.n_nonfinite])

    def stacked(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack([tensor, next(self.stacks)])

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        other = next(self.sums)
        # The scatter of nothing is 0.
        return tensor if other is None else tensor + other


def test_an_empty_share_changes_nothing() -> None:
    half = HalfStatistics.empty(6, "pooled", torch.device("cpu"))
    half.covariance.update(torch.randn(50, 6) + 3)
    before, mean = half.covariance.scatter, half.covariance.mean
    half.reduce(WithOne(HalfStatistics.empty(6, "pooled", torch.device("cpu"))))
    torch.testing.assert_close(half.covariance.scatter, before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(half.covariance.mean, mean, rtol=1e-12, atol=0)
    assert half.covariance.n_tokens == 50


def test_free_memory_is_shared_by_the_processes_of_a_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8000))
    cpu = torch.device("cpu")
    assert free_memory(cpu) == 8000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(cpu) == 2000


def test_a_launcher_that_says_cpu_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert choose_device("auto").type == "cpu"
