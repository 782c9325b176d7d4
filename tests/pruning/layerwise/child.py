"""What a process of its own does: it tells what memory layers took, and then is killed at work.

``python -m tests.pruning.layerwise.child FOLDER`` prints what it took and what was predicted, in
bytes, and leaves in FOLDER what a kill leaves.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

from projector.corpus.batches import Corpus
from projector.memory import give_back
from projector.model.architecture.finding import find_architecture
from pruning.layerwise.budget import needs_of, within
from pruning.layerwise.cutting import cut_model
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.recipes import Recipe
from tests.families import build

WIDE, N_WIDE_LAYERS = 1024, 5
RECIPE = Recipe("obs", "least-squares", 0.02)
KILLED_AT = 1


def corpus_of(n_sequences: int, length: int) -> Corpus:
    """Made-up token ids."""
    ids = np.random.default_rng(0).integers(1, 320, n_sequences * length).astype(np.int32)
    starts = np.arange(n_sequences + 1) * length
    return Corpus("made-up", "0" * 64, ids, starts, 0, len(ids), len(ids), 0, ())


def cut(model: Any, corpus: Corpus, folder: Path, *, spilled: bool = False) -> Any:
    """One recipe carried out on a model."""
    files = LayerFiles(folder, {}, [RECIPE])
    files.begin()
    architecture = find_architecture(model)
    return cut_model(model, architecture, corpus, RECIPE, files, spilled=spilled)


def measure(folder: Path) -> dict[str, int]:
    """What cutting a wide model took beside it, and what was predicted."""
    config = hf.Qwen2Config(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=WIDE,
        num_hidden_layers=N_WIDE_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = hf.Qwen2ForCausalLM(config).eval()
    corpus = corpus_of(100, 16)
    needs = within(needs_of(model, find_architecture(model), corpus, [RECIPE]), None)
    # Libraries that are loaded at the first product and the first inverse are not counted.
    torch.linalg.solve(torch.eye(64).double(), torch.ones(64, 1).double())
    torch.linalg.inv(torch.eye(64).double())
    cut(build("qwen2"), corpus_of(60, 8), folder / "first")
    give_back()
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")
    cut(model, corpus, folder / "wide")
    return {"took": resident("VmHWM") - before, "predicted": needs.total, "sums": needs.sums}


def resident(what: str = "VmRSS") -> int:
    """Bytes of this process in memory, or the most there ever were."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise ValueError(what)


def be_killed(folder: Path) -> None:
    """Work at a model, and die while a layer is written."""
    own = LayerFiles._write

    def dying(self: LayerFiles, path: Path, *given: Any) -> None:
        if path == self._path("layer", KILLED_AT):
            (path.parent / f".{path.name}.partial").write_bytes(b"half a layer")
            os.kill(os.getpid(), signal.SIGKILL)
        own(self, path, *given)

    LayerFiles._write = dying  # type: ignore[method-assign]
    cut(build("qwen2"), corpus_of(60, 8), folder / "killed", spilled=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    # It reads this module.
    from tests.pruning.reuse.replacing import measured

    told = {**measure(Path(sys.argv[1])), "reuse": measured.measure()}
    print(json.dumps(told), flush=True)
    be_killed(Path(sys.argv[1]))
