"""What is quick stays quick: heavy libraries are loaded by those who need them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "projection-v1"


def loaded_after(code: str, *libraries: str) -> list[str]:
    """Which of these libraries a process of its own has loaded after it ran ``code``."""
    program = f"{code}\nimport sys\nprint([m for m in {libraries!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found: list[str] = eval(done.stdout.strip().splitlines()[-1])
    return found


def test_info_reads_json_and_headers_without_torch() -> None:
    code = f"""
import sys
from projector.terminal import cli
sys.argv = ["projector", "info", {str(GOLDEN / "stress")!r}, "--json"]
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
