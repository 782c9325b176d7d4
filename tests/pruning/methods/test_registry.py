"""Records of methods and refits, and what is written of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruning.methods.registry import METHODS
from pruning.refit.registry import REFITS

PAGE = Path(__file__).parents[3] / "docs" / "pruning.md"


@pytest.mark.parametrize("name", [*METHODS, *REFITS])
def test_the_page_has_a_row_of_each(name: str) -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert any(line.startswith(f"| `{name}`") for line in rows)


def test_records_are_for_people() -> None:
    for record in (*METHODS.values(), *REFITS.values()):
        assert record.help
        assert len(record.help) < 100
        # Braces are placeholders of help texts.
        assert not set("{}") & set(record.help)
