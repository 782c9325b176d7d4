"""What a fit takes of memory, and that it stays within what it was given."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import projector
from projector import Projection, UserError
from projector.figures.html import write_pictures
from projector.figures.words import trust_text
from projector.fitting.budget import Plan, plan_fit, reckon_needs
from projector.fitting.preparing import prepare
from projector.fitting.settings import FitSettings
from projector.layouts.registry import OBJECTIVES
from projector.layouts.solving import Layout
from projector.memory import enough_text
from projector.terminal.options import parse_size
from tests.projections import contents
from tests.refused import refused, refused_naming


def needs_of(widths: dict[tuple[int, str], int], **more: Any) -> Any:
    options: dict[str, Any] = {
        "correlation": "pooled",
        "layouts": (Layout(),),
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
    with refused("room", text, "8GiB"):
        parse_size(text, "room")


def plan_of(
    widths: dict[tuple[int, str], int], budget: int | None, free: int = 0, **more: Any
) -> Plan:
    # Enough tokens that a sample of them is no small one.
    return plan_fit(needs_of(widths, **more), widths, budget, free, n_tokens=10**6, itemsize=4)


def test_methods_of_one_name_count_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = {(0, "a"): 1000}
    plain = needs_of(widths)
    method = OBJECTIVES["neighbours"].methods["umap"]
    namesake = replace(method, name=Layout().method, pair_bytes=5000, library_bytes=1 << 30)
    record = replace(OBJECTIVES["neighbours"], name="other", methods={"smacof": namesake})
    monkeypatch.setitem(OBJECTIVES, "other", record)
    layouts = (Layout(objective="other"), Layout())
    for order in (layouts, layouts[::-1]):
        both = needs_of(widths, layouts=order)
        more = both.placing[0, "a"] - plain.placing[0, "a"]
        assert more == (5000 - Layout().how.pair_bytes) * 1000**2
        assert both.libraries - plain.libraries == 1 << 30
        assert not both.may_sample


def test_passes_hold_every_map_once_and_stay_within_the_budget() -> None:
    widths = {(layer, site): n for layer in range(7) for site, n in (("a", 300), ("b", 900))}
    needs = needs_of(widths)
    assert plan_of(widths, None, 10**12).passes == (tuple(widths),)
    working = needs.batch + needs.libraries + max(needs.placing.values())
    for share in (0.2, 0.5, 0.9):
        budget = working + int(share * sum(needs.sums.values()))
        plan = plan_of(widths, budget)
        assert plan.samples == {}
        assert [key for keys in plan.passes for key in keys] == list(widths)
        assert plan.n_bytes == needs.of(plan.passes) <= budget
        # No more passes than needed: two that follow one another would not fit into one.
        for first, second in itertools.pairwise(plan.passes):
            assert needs.of([(*first, second[0])]) > budget
    by_sequence = needs_of(widths, correlation="per-sequence").sums
    assert by_sequence == {key: 3 * n_bytes for key, n_bytes in needs.sums.items()}


def test_results_that_stay_in_memory_count() -> None:
    widths = {(0, "a"): 500, (1, "a"): 500}
    needs = needs_of(widths, in_memory=True)
    more = sum(needs.results.values())
    # Covariance and both halves of two maps, and positions.
    assert 2 * 6 * 500**2 <= more <= 2 * 6.5 * 500**2
    passes = [list(widths)]
    assert needs.of(passes) == needs_of(widths).of(passes) + more


def test_a_budget_that_holds_no_map_is_one_clear_line() -> None:
    widths = {(3, "mlp_post"): 5000, (4, "attn_out"): 10}
    # Trained online, so that a sample can't take the matrix's place.
    needs = needs_of(widths, layouts=(Layout(solver="adamw"),))
    with pytest.raises(UserError) as caught:
        plan_of(widths, 10**8, layouts=(Layout(solver="adamw"),))
    line = str(caught.value)
    budget = needs.of([[(3, "mlp_post")]])
    least = enough_text(budget)
    for part in ("100 MB", least, "layer 3 mlp_post", "memory_budget"):
        assert part in line
    # What the line says helps.
    assert (
        plan_of(
            widths, parse_size(least.replace(" ", "")), layouts=(Layout(solver="adamw"),)
        ).samples
        == {}
    )
    with refused_naming("memory", "100 MB"):
        plan_of(widths, None, 10**8, layouts=(Layout(solver="adamw"),))


def test_a_map_too_wide_for_a_matrix_keeps_a_sample() -> None:
    widths = {(0, "mlp_post"): 20_000, (0, "mlp_out"): 2_000, (1, "mlp_post"): 20_000}
    plan = plan_of(widths, 4 * 10**9)
    assert set(plan.samples) == {(0, "mlp_post"), (1, "mlp_post")}
    assert all(1000 < n < 2 * 20_000 for n in plan.samples.values())
    assert plan.n_bytes <= 4 * 10**9
    # As many as there is room for.
    assert plan.n_bytes > 3.9 * 10**9
    assert [key for keys in plan.passes for key in keys] == list(widths)
    assert Plan.from_json(json.loads(json.dumps(plan.as_json()))) == plan
    # With room for the matrix there is no sample; with room for hardly a token there is no map.
    assert plan_of(widths, 40 * 10**9).samples == {}
    with refused_naming("layer 0 mlp_post") as caught:
        plan_of(widths, 600 * 10**6)
    (number, unit) = re.findall(r"(\d\S*) ([kMG]B)", str(caught.value))[0]
    samples = plan_of(widths, parse_size(number + unit)).samples
    assert set(samples) == set(plan.samples)
    assert all(1000 <= n_drawn < 1100 for n_drawn in samples.values())
    # What is kept in memory of other maps is room that it does not have; of its own, nothing is.
    kept = plan_of(widths, 4 * 10**9, in_memory=True)
    assert set(kept.samples) == set(plan.samples)
    assert kept.n_bytes <= 4 * 10**9
    assert 0 < plan.samples[0, "mlp_post"] - kept.samples[0, "mlp_post"] < 200
    # Of what is free, which is never the same twice, a round share.
    for free in (4 * 10**9, 4_100_000_000):
        assert plan_of(widths, None, free).samples[0, "mlp_post"] == 16_384
    # The least that is told is what suffices, also of what is free.
    with refused_naming("layer 0 mlp_post", "648 MB", "720 MB"):
        plan_of(widths, None, 720 * 10**6)
    assert set(plan_of(widths, None, 735 * 10**6).samples.values()) == {1000}
    # No more than twice the neurons, and no more than the corpus has.
    roomy = plan_of({(0, "a"): 6_000}, 1500 * 10**6)
    assert roomy.samples == {(0, "a"): 2 * 6_000 - 1}
    needs = needs_of(widths)
    few = plan_fit(needs, widths, 4 * 10**9, 0, n_tokens=700, itemsize=2)
    assert set(few.samples.values()) == {700}


WIDE = (0, "mlp_post")


def sampled_fit(
    model: str, corpus: str, n_drawn: int, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> projector.Projection:
    """A fit of layer 0 that has room for the matrix of its narrow map, and none for its wide."""

    def plan(needs: Any, widths: Any, *_: object, **__: object) -> Plan:
        return Plan(0, (tuple(widths),), {WIDE: n_drawn}, 0, 0)

    with monkeypatch.context() as patch:
        patch.setattr(projector.fitting.preparing, "plan_fit", plan)
        return projector.fit(model, corpus, **OF_LAYER_0, **more)


OF_LAYER_0: dict[str, Any] = {
    "sites": ("mlp_post", "mlp_out"),
    "layers": (0,),
    "batch_size": 1,
    "max_tokens": 300,
    "sequence_length": 32,
    "dim": 3,
}


def test_a_fit_without_the_matrix_is_that_with_it_where_all_tokens_are_drawn(
    checkpoint: Callable[[str], Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, corpus = str(checkpoint("qwen2")), str(text_file)
    found = sampled_fit(model, corpus, 300, monkeypatch)
    stored = projector.fit(model, corpus, **OF_LAYER_0)
    figures, exact = (p.figures(0, "mlp_post") for p in (found, stored))
    n_drawn = figures["sample"]["n_tokens"]
    assert n_drawn == figures["n_tokens"] == figures["sample"]["n_corpus_tokens"] == 300
    assert torch.equal(found.positions(0, "mlp_out"), stored.positions(0, "mlp_out"))
    apart = [torch.pdist(p.positions(0, "mlp_post")) for p in (found, stored)]
    assert torch.allclose(*apart, atol=0.02)
    for name in ("stress", "stress_1", "rank_correlation", "correlation_stability"):
        assert figures[name] == pytest.approx(exact[name], abs=0.01), name
    assert figures["sample"]["measured"] == 0
    assert "300 of 300 tokens" in trust_text(figures)
    # What was never a matrix is not read as one.
    assert found.has_statistics_of(0, "mlp_out")
    assert not found.has_statistics_of(*WIDE)
    assert found.correlation(0, "mlp_out").shape[0] == found.positions(0, "mlp_out").shape[0]
    with refused("memory_budget", None, "layer 0 mlp_post", "300 tokens"):
        found.correlation(0, "mlp_post")
    found.save(tmp_path / "found")
    names = [path.name for path in write_pictures(Projection.load(tmp_path / "found"), tmp_path)]
    # The first site has no correlations to draw.
    assert "heatmap-layer0-mlp_out.html" in names
    with refused("memory_budget", None, "layer 0 mlp_post"):
        projector.relayout(found, Layout(dim=2))


def test_a_stopped_fit_without_the_matrix_goes_on_to_the_same_bytes(
    checkpoint: Callable[[str], Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, corpus = str(checkpoint("qwen2")), str(text_file)
    sampled_fit(model, corpus, 120, monkeypatch, out=tmp_path / "whole")
    fitting: Any = projector.fitting.running
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(fitting, "_CHECKPOINT_SHARE", float("inf"))
    run = projector.statistics.gathering.Gatherer.run
    seen = []

    def stopped(self: Any, *batch: Any) -> None:
        seen.append(batch)
        if len(seen) == 5:
            raise KeyboardInterrupt
        run(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(projector.statistics.gathering.Gatherer, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            sampled_fit(model, corpus, 120, monkeypatch, out=tmp_path / "stopped")
    # The sample is the stopped fit's, whatever room there is by now.
    again = projector.fit(model, corpus, **OF_LAYER_0, out=tmp_path / "stopped", resume=True)
    assert again.figures(0, "mlp_post")["n_tokens"] == 120
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")


@pytest.mark.parametrize("solver", ["smacof", "adamw"])
def test_several_passes_give_what_one_gives(
    solver: str, checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    model, corpus = str(checkpoint("qwen2")), str(text_file)
    options: dict[str, Any] = {"max_tokens": 1200, "batch_size": 4, "solver": solver}
    job = prepare(model, corpus, FitSettings(max_tokens=1200, batch_size=4), job_layout(solver))
    more = {"layouts": job.layouts, "examples": job.examples}
    needs = needs_of(job.widths, n_positions=4 * job.sequence_length, **more)
    budget = needs.of([[key] for key in job.widths]) + max(needs.sums.values())
    once = projector.fit(model, corpus, out=tmp_path / "once", **options)
    often = projector.fit(model, corpus, out=tmp_path / "often", memory_budget=budget, **options)
    # The budget is a setting, which the projection tells; all that was found is the same.
    assert replace(often.facts, run=once.facts.run) == once.facts
    assert dict(often.statistics).keys() == dict(once.statistics).keys()
    for name, tensor in once.statistics.items():
        assert torch.equal(tensor, often.statistics[name]), name
    for key in once.maps:
        assert torch.equal(once.positions(*key), often.positions(*key)), key
        assert once.figures(*key).as_dict() == often.figures(*key).as_dict()


def job_layout(solver: str) -> Any:
    return projector.layouts.solving.Layout(solver=solver)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_the_peak_stays_within_the_budget(tmp_path: Path) -> None:
    """A wide model in a process of its own: what it takes beside the loaded model."""
    command = [sys.executable, "-m", "benchmarks.memory", "--case"]
    found = subprocess.run(
        [*command, "1536", "2", "280MiB", str(tmp_path), "--tokens", "6000"],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        # Beside other tests, threads would wait for one another.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    case = json.loads(found.stdout.splitlines()[-1])
    assert case["n_passes"] > 1
    assert case["peak_bytes"] <= 1.1 * 280 * 2**20
    # And is no small part of it: the budget is used.
    assert case["peak_bytes"] > 0.4 * 280 * 2**20


def test_several_layouts_are_placed_in_the_memory_of_the_greediest() -> None:
    widths, key = {(0, "mlp_post"): 500}, (0, "mlp_post")
    order = Layout(objective="linear")
    one, other = needs_of(widths), needs_of(widths, layouts=(order,))
    both = needs_of(widths, layouts=(Layout(), order))
    assert both.placing[key] == max(one.placing[key], other.placing[key])
    assert both.libraries == other.libraries > one.libraries
    # One that needs the matrix decides for all.
    assert one.may_sample
    assert not both.may_sample
