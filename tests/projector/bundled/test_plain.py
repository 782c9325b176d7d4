"""The bundled model without this project: plain transformers finds the same tokens and bits."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from projector.bundled.train import bits_per_byte
from projector.corpus.readers.stdlib import stdlib_modules
from projector.model.loading import BUNDLED_FOLDER, load_model
from pruning import saving
from pruning.methods.plan import LayerPlan, PruningPlan
from pruning.saving import save_pruned
from pruning.surgery import apply_plan

# Spaces, digits, accents in two forms, and what other word patterns cut at.
AWKWARD = "def f(x):\n        return 1234  +  x\n\n\n# caf\u00e9 cafe\u0301 It's 'so'.\r\n\tx_1=2\n"
CONTEXT = 256
# What a stranger would run; this project can't be imported there.
_PLAIN = """
import sys
sys.modules["projector"] = sys.modules["pruning"] = sys.modules["dashboard"] = None
import json, torch, transformers
torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
given = json.load(open(sys.argv[1], encoding="utf-8"))
found = {}
for folder in given["folders"]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    end = tokenizer.eos_token_id
    stream = []
    for text in given["texts"]:
        stream += [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
    nats = 0.0
    for start in range(0, len(stream), given["context"]):
        window = torch.tensor(stream[start : start + given["context"]])
        inputs = torch.cat([torch.tensor([end]), window[:-1]])
        with torch.no_grad():
            logits = model(input_ids=inputs[None]).logits[0]
        nats += torch.nn.functional.cross_entropy(logits.float(), window, reduction="sum").item()
    ids = tokenizer(given["awkward"])["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    found[folder] = {"stream": stream, "nats": nats, "awkward": ids, "decoded": text}
json.dump(found, open(sys.argv[2], "w", encoding="utf-8"))
"""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """A few held-out modules that are soon scored."""
    fitting = [text for _, text in stdlib_modules("heldout") if 1000 < len(text) < 8000]
    return fitting[:4]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundled model whose MLPs lack every fourth neuron."""
    loaded = load_model(with_head=True, device="cpu")
    layer = LayerPlan(768, kept=tuple(i for i in range(768) if i % 4))
    plan = PruningPlan("random", 0.25, 0, "uniform", 1, (layer,) * 6)
    out = tmp_path_factory.mktemp("plain") / "pruned"
    with pytest.MonkeyPatch.context() as patch:
        # The process of this test loads it again.
        patch.setattr(saving, "_compare", lambda *args, **options: (0.0, False))
        save_pruned(apply_plan(loaded.model, plan), loaded.tokenizer, plan, {}, out)
    return out


@pytest.fixture(scope="module")
def plain(
    pruned: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What plain transformers finds of both, by their folders."""
    folder = tmp_path_factory.mktemp("stranger")
    given = {"folders": [str(BUNDLED_FOLDER), str(pruned)], "texts": texts}
    given |= {"awkward": AWKWARD, "context": CONTEXT}
    (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-c", _PLAIN, "given.json", "found.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("which", ["bundled", "pruned"])
def test_plain_transformers_finds_the_same_tokens_and_bits(
    which: str, plain: dict[str, Any], pruned: Path, texts: list[str]
) -> None:
    folder = str(BUNDLED_FOLDER) if which == "bundled" else str(pruned)
    name = "bundled" if which == "bundled" else folder
    loaded = load_model(name, with_head=True, device="cpu")
    found = plain[folder]
    expected = []
    for text in texts:
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        expected += [*ids, loaded.tokenizer.eos_token_id]
    assert found["stream"] == expected
    assert found["awkward"] == loaded.tokenizer(AWKWARD)["input_ids"]
    n_bytes = sum(len(text.encode()) for text in texts)
    bits = found["nats"] / math.log(2) / n_bytes
    ours = bits_per_byte(loaded.model, iter(texts), loaded.tokenizer, CONTEXT)  # type: ignore[arg-type]
    assert bits == pytest.approx(ours, rel=1e-4)


def test_what_it_was_trained_for_is_found_without_the_project(
    plain: dict[str, Any], texts: list[str]
) -> None:
    n_bytes = sum(len(text.encode()) for text in texts)
    found = plain[str(BUNDLED_FOLDER)]
    # With another word pattern than it was trained with it needs a third more.
    assert found["nats"] / math.log(2) / n_bytes < 1.05
