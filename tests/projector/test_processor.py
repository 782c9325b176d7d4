"""What a processor can do is asked of PyTorch, or read from the system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from projector import processor


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    processor._instructions.cache_clear()
    yield
    processor._instructions.cache_clear()


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"avx512_f": True, "amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_tile": True}, False),
        ({"neon": True, "sve_max_length": 1}, False),
    ],
)
def test_pytorch_is_asked(
    instructions: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert processor.multiplies_bf16() == expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not processor.multiplies_bf16()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2\n", False),
        (None, False),
    ],
)
def test_the_system_is_read_where_pytorch_does_not_say(
    text: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Path, encoding: str) -> str:
        assert str(self) == "/proc/cpuinfo"
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert processor.multiplies_bf16() == expected
