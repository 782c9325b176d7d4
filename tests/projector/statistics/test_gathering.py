"""A pass over the corpus runs no block behind the last one that is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import cpu_offload

from projector import Projection
from projector.fitting.pipeline import run
from projector.fitting.preparing import Job, prepare
from projector.fitting.settings import FitSettings
from projector.model.architecture.records import Architecture
from projector.model.loading import load_model
from projector.statistics.examples import gather_examples


@contextmanager
def counting(architecture: Architecture) -> Iterator[Counter[int]]:
    """How often each block is entered while open."""
    entered: Counter[int] = Counter()
    handles = [
        block.module.register_forward_pre_hook(lambda *args, i=i: entered.update([i]))
        for i, block in enumerate(architecture.blocks)
    ]
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()


def counted(job: Job) -> tuple[Projection, dict[int, int]]:
    """The projection, and how often each block was run."""
    with counting(job.architecture) as entered:
        projection = run(job)
    return projection, dict(entered)


def check_equal(found: Projection, whole: Projection) -> None:
    for key in found.maps:
        assert torch.equal(found.mean(*key), whole.mean(*key))
        assert torch.equal(found.covariance(*key), whole.covariance(*key))
        halves, expected = found.half_correlations(*key), whole.half_correlations(*key)
        assert halves is not None
        assert expected is not None
        assert torch.equal(halves[0].nan_to_num(), expected[0].nan_to_num())


def test_of_some_layers_the_rest_is_not_run(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    name, corpus = str(checkpoint("qwen2")), str(text_file)
    whole, n_all = counted(prepare(name, corpus, FitSettings(max_tokens=800)))
    n_batches = n_all[0]
    assert n_all == {0: n_batches, 1: n_batches}
    first, n_first = counted(prepare(name, corpus, FitSettings(max_tokens=800, layers=(0,))))
    assert n_first == {0: n_batches}
    check_equal(first, whole)
    # Each pass stops behind its own last layer.
    job = prepare(name, corpus, FitSettings(max_tokens=800))
    passes = tuple(tuple(key for key in job.widths if key[0] == layer) for layer in (0, 1))
    in_passes, n_in_passes = counted(replace(job, plan=replace(job.plan, passes=passes)))
    assert n_in_passes == {0: 2 * n_batches, 1: n_batches}
    check_equal(in_passes, whole)


def test_a_spread_model_is_stopped_too(checkpoint: Callable[[str], Path], text_file: Path) -> None:
    name, corpus = str(checkpoint("qwen2")), str(text_file)
    settings = FitSettings(max_tokens=800, layers=(0,), sites=("attn_out",))
    plain, n_plain = counted(prepare(name, corpus, settings))
    loaded = load_model(name, device="cpu")
    for block in loaded.model.layers:
        cpu_offload(block, execution_device=torch.device("cpu"), offload_buffers=True)
    job = prepare(loaded, corpus, settings)
    spread, n_spread = counted(job)
    # One run more finds where its activations are.
    assert n_spread == {0: n_plain[0] + 1}
    check_equal(spread, plain)
    # Its weights are where they were, and the rest of it runs.
    assert all(parameter.is_meta for parameter in loaded.model.layers[0].parameters())
    ids = torch.arange(2, 8)[None]
    expected = load_model(name, device="cpu").model(input_ids=ids).last_hidden_state
    assert torch.equal(job.trunk(input_ids=ids).last_hidden_state, expected)


def test_examples_of_a_layer_run_none_behind_it(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    job = prepare(str(checkpoint("qwen2")), str(text_file), FitSettings(max_tokens=800))
    with counting(job.architecture) as entered:
        gather_examples(job.loaded.model, job.architecture, job.corpus, 0, "mlp_post")
    assert set(entered) == {0}
