"""What the processor can do that decides how something is computed."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

# Names of the instructions that multiply bfloat16: of x86, and of ARM.
_BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16", "sve_bf16", "svebf16"})


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bfloat16, and PyTorch uses them.

    Without them it widens each number first, and is slower than in float32.
    """
    return torch.backends.mkldnn.is_available() and bool(_BF16 & _instructions())


@cache
def _instructions() -> frozenset[str]:
    known = getattr(torch.cpu, "get_capabilities", None)
    if known is not None:
        return frozenset(name for name, has in known().items() if has is True)
    # Older versions of PyTorch don't say.
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, words = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(words.split())
    return frozenset()
