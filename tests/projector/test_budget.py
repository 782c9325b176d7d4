"""What a fit takes of memory, and that it stays within what it was given."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import projector
from projector import UserError
from projector.budget import plan_passes, reckon_needs, size_text
from projector.options import parse_size
from projector.preparing import FitSettings, prepare
from projector.projection import FACTS_FILE, POSITIONS_FILE, STATISTICS_FILE


def needs_of(widths: dict[tuple[int, str], int], **more: Any) -> Any:
    options: dict[str, Any] = {
        "correlation": "pooled",
        "method": "smacof",
        "device": torch.device("cpu"),
        "n_positions": 64,
        "widest": max(widths.values()),
        "in_memory": False,
    }
    return reckon_needs(widths, **{**options, **more})


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("8GiB", 8 * 2**30),
        ("500MB", 500 * 10**6),
        ("1.5 g", 1_500_000_000),
        ("64KiB", 65_536),
        ("12345", 12_345),
        ("2tib", 2 * 2**40),
    ],
)
def test_sizes_are_read_with_their_units(text: str, n_bytes: int) -> None:
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "much", "8 G B", "-3GB", "8iB", "1e9", "8XB"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(UserError, match="8GiB"):
        parse_size(text)


def test_passes_hold_every_map_once_and_stay_within_the_budget() -> None:
    widths = {(layer, site): n for layer in range(7) for site, n in (("a", 300), ("b", 900))}
    needs = needs_of(widths)
    assert plan_passes(needs, widths, None, 10**12) == (tuple(widths),)
    for share in (0.2, 0.5, 0.9):
        budget = needs.working + int(share * sum(needs.sums.values()))
        passes = plan_passes(needs, widths, budget, 0)
        assert [key for keys in passes for key in keys] == list(widths)
        assert needs.of(passes) <= budget
        # No more passes than needed: two that follow one another would not fit into one.
        for first, second in itertools.pairwise(passes):
            assert needs.of([(*first, second[0])]) > budget
    by_sequence = needs_of(widths, correlation="per-sequence").sums
    assert by_sequence == {key: 3 * n_bytes for key, n_bytes in needs.sums.items()}


def test_results_that_stay_in_memory_count() -> None:
    widths = {(0, "a"): 500, (1, "a"): 500}
    more = needs_of(widths, in_memory=True).results
    assert 8 * 500**2 <= more <= 9 * 500**2


def test_a_budget_that_holds_no_map_is_one_clear_line() -> None:
    widths = {(3, "mlp_post"): 5000, (4, "attn_out"): 10}
    needs = needs_of(widths)
    with pytest.raises(UserError) as caught:
        plan_passes(needs, widths, 10**8, 10**12)
    line = str(caught.value)
    least = size_text(needs.of([[(3, "mlp_post")]]))
    for part in ("the budget is 100 MB", least, "layer 3 mlp_post", "--memory-budget"):
        assert part in line
    # What the line says helps.
    budget = needs.of([[(3, "mlp_post")]])
    assert len(plan_passes(needs, widths, budget, 0)) == 2
    with pytest.raises(UserError, match="100 MB are free"):
        plan_passes(needs, widths, None, 10**8)


@pytest.mark.parametrize("solver", ["smacof", "adamw"])
def test_several_passes_give_what_one_gives(
    solver: str, checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    model, corpus = str(checkpoint("qwen2")), str(text_file)
    options: dict[str, Any] = {"max_tokens": 1200, "batch_size": 4, "solver": solver}
    job = prepare(model, corpus, FitSettings(max_tokens=1200, batch_size=4), job_layout(solver))
    budget = job.needs.working + max(job.needs.sums.values()) * 3 // 2
    projector.fit(model, corpus, out=tmp_path / "once", **options)
    projector.fit(model, corpus, out=tmp_path / "often", memory_budget=budget, **options)
    for name in (FACTS_FILE, POSITIONS_FILE, STATISTICS_FILE):
        once, often = (tmp_path / folder / name for folder in ("once", "often"))
        assert once.read_bytes() == often.read_bytes(), name


def job_layout(solver: str) -> Any:
    return projector.solvers.Layout(solver=solver)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_the_peak_stays_within_the_budget(tmp_path: Path) -> None:
    """A wide model in a process of its own: what it takes beside the loaded model."""
    command = [sys.executable, "-m", "benchmarks.memory", "--case"]
    found = subprocess.run(
        [*command, "1536", "3", "336MiB", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    case = json.loads(found.stdout.splitlines()[-1])
    assert case["n_passes"] > 1
    assert case["peak_bytes"] <= 1.1 * 336 * 2**20
    # And is no small part of it: the budget is used.
    assert case["peak_bytes"] > 0.4 * 336 * 2**20
