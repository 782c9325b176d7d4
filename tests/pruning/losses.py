"""What is lost when neurons go, from its definition."""

from __future__ import annotations

import torch
from torch import Tensor


def joint_loss(moments: Tensor, output: Tensor, kept: Tensor) -> float:
    """What is lost at the block's output when only ``kept`` (K,) stay, refitted at best."""
    is_kept = torch.zeros(len(moments), dtype=torch.bool)
    is_kept[kept] = True
    inner, cross = moments[is_kept][:, is_kept], moments[is_kept][:, ~is_kept]
    rest = moments[~is_kept][:, ~is_kept] - cross.T @ torch.linalg.solve(inner, cross)
    removed = output[:, ~is_kept]
    return float(((removed @ rest) * removed).sum())
