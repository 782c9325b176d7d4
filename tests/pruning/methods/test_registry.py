"""Records of methods and refits, and what they say of themselves."""

from __future__ import annotations

from pruning.methods.registry import METHODS
from pruning.refit.registry import REFITS


def test_records_are_for_people() -> None:
    for record in (*METHODS.values(), *REFITS.values()):
        assert record.help
        assert len(record.help) < 100
        # Braces are placeholders of help texts.
        assert not set("{}") & set(record.help)
