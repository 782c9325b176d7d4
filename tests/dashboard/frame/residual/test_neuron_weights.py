"""What a neuron's weights read and write, beside shuffled weights."""

from __future__ import annotations

from dashboard.frame.residual.neuron_weights import _beside_shuffled


def test_what_is_within_the_control_is_called_no_more_than_chance() -> None:
    assert "chance" in _beside_shuffled(1.352, 0, 4096, "tokens")
    found = _beside_shuffled(0.29, 3, 4096, "tokens")
    assert "chance" not in found
    assert "0.290" in found
    assert "3 of 4,096 tokens" in found
