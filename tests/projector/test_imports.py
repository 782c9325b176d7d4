"""What is quick stays quick: heavy libraries are loaded by those who need them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import projector
from projector.statistics.organisation import Organisation
from tests.projections import edit

GOLDEN = Path(__file__).parents[1] / "golden" / "projection-v1"


def loaded_after(code: str, *libraries: str) -> list[str]:
    """Which of these libraries a process of its own has loaded after it ran ``code``."""
    program = f"{code}\nimport sys\nprint([m for m in {libraries!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found: list[str] = eval(done.stdout.strip().splitlines()[-1])
    return found


def test_info_reads_json_and_headers_without_torch(tmp_path: Path) -> None:
    folder = tmp_path / "measured"
    projector.Projection.load(GOLDEN / "stress").save(folder)
    # Older projections do not tell how organised their maps are, and that is measured by torch.
    figures = {each.name: 1.0 for each in fields(Organisation)} | {"n_neurons": 2}

    def measured(facts: dict[str, Any]) -> None:
        for each in facts["maps"].values():
            each["organisation"] = figures

    edit(folder, measured)
    code = f"""
import sys
from projector.terminal import cli
sys.argv = ["projector", "info", {str(folder)!r}, "--json"]
try:
    cli.main()
except SystemExit as done:
    assert not done.code, done.code
"""
    assert loaded_after(code, "torch", "numpy", "transformers", "filelock") == []


def test_a_projection_is_loaded_without_what_makes_one() -> None:
    code = f"""
import projector
projection = projector.Projection.load({str(GOLDEN / "stress")!r})
assert projection.positions(0, "mlp_post").shape == (40, 2)
assert projection.correlation(0, "mlp_post").shape == (40, 40)
"""
    heavy = ("accelerate", "transformers", "umap", "streamlit", "sklearn", "plotly", "scipy")
    assert loaded_after(code, *heavy) == []
