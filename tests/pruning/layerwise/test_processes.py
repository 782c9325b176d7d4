"""Memory, as a process has it, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pruning.layerwise.making import LayerMaker
from tests.families import N_LAYERS, build
from tests.pruning.layerwise.child import KILLED_AT, N_WIDE_LAYERS, corpus_of, cut

ROOT = Path(__file__).parents[3]
# Small things that no formula counts.
_SLACK = 12_000_000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for the peak")
def test_memory_is_as_predicted_and_a_kill_loses_one_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.pruning.layerwise.child", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        # Freed matrices as small as these glibc would keep for itself.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    told = json.loads(done.stdout)
    assert told["took"] <= told["predicted"] + _SLACK
    # The prediction is not merely safe; and less than the moments of all layers.
    assert told["took"] >= told["predicted"] / 2
    assert told["predicted"] < told["sums"] + 3 * N_WIDE_LAYERS * 8 * 1024**2
    # The same of rows of reuse, whose fitted layers are on disk.
    assert told["reuse"]["predicted"] / 2 <= told["reuse"]["took"] <= told["reuse"]["predicted"]
    folder = tmp_path / "killed"
    left = {path.name for path in folder.iterdir()}
    assert f"layer-{KILLED_AT - 1:05}.safetensors" in left
    assert any(name.startswith(".streams") for name in left)
    made: list[int] = []
    own = LayerMaker._make

    def counted(self: LayerMaker, walked: object, shapes: object) -> object:
        made.append(walked.index)  # type: ignore[attr-defined]
        return own(self, walked, shapes)  # type: ignore[arg-type]

    monkeypatch.setattr(LayerMaker, "_make", counted)
    plan, resumed = cut(build("qwen2"), corpus_of(60, 8), folder, spilled=True)
    assert made == list(range(KILLED_AT, N_LAYERS))
    names = {path.name for path in folder.iterdir()}
    assert names == {f"layer-{layer:05}.safetensors" for layer in range(N_LAYERS)}
    whole_plan, whole = cut(build("qwen2"), corpus_of(60, 8), tmp_path / "whole")
    assert plan == whole_plan
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
