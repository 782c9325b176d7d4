"""Measure speed and size of two models in one run."""

from __future__ import annotations

import time
import weakref
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from projector.errors import SettingError, check_least
from projector.model.context import longest_sequence
from projector.progress import Progress, Silent

DEFAULT_SEQUENCE_LENGTH = 256
DEFAULT_BATCH_SIZE = 4
DEFAULT_REPEATS = 21
LEAST_REPEATS = 7
_N_WARMUPS = 2


@dataclass(frozen=True)
class Speed:
    """One model's figures in a comparison.

    Attributes:
        name: the model's name, for people.
        n_parameters: number of parameters, tied weights counted once.
        weight_bytes: memory of parameters and buffers, tied ones counted once.
        operations_per_token: floating-point operations of one forward pass over a token, with a
            multiplication and an addition as two; of all matrix products, including attention's and
            the head's, counted by :class:`torch.utils.flop_counter.FlopCounterMode`.
        seconds: median time of one forward pass over the batch.
        peak_bytes: most memory held during a pass, including weights.
    """

    name: str
    n_parameters: int
    weight_bytes: int
    operations_per_token: float
    seconds: float
    peak_bytes: int
    tokens_per_second: float


@dataclass(frozen=True)
class SpeedComparison:
    """Forward passes of two models over the same tokens, in turns.

    Attributes:
        dense: the first model.
        pruned: the second.
        time_ratio: median over repetitions of pruned time / dense time. Each pair is measured one
            right after the other, so that other load on the machine slows both.
        time_ratio_range: first and third quartile of this ratio; wide on a busy machine.
        memory: how ``peak_bytes`` was measured.
        notes: reasons why the two are less comparable than they look.
    """

    dense: Speed
    pruned: Speed
    time_ratio: float
    time_ratio_range: tuple[float, float]
    batch_size: int
    sequence_length: int
    n_repeats: int
    n_threads: int
    device: str
    dtype: str
    memory: str
    notes: tuple[str, ...]

    @property
    def operations_ratio(self) -> float:
        """Pruned operations / dense operations."""
        return self.pruned.operations_per_token / self.dense.operations_per_token

    @property
    def parameters_ratio(self) -> float:
        """Pruned parameters / dense parameters."""
        return self.pruned.n_parameters / self.dense.n_parameters

    @property
    def excess(self) -> float:
        """The excess of the time ratio over the ratio of operations; 0.05 is 5 %."""
        return self.time_ratio / self.operations_ratio - 1

    def figures(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return asdict(self) | {
            "operations_ratio": self.operations_ratio,
            "parameters_ratio": self.parameters_ratio,
            "excess": self.excess,
        }


def compare_speed(
    dense: nn.Module,
    pruned: nn.Module,
    *,
    names: tuple[str, str] = ("dense", "pruned"),
    batch_size: int = DEFAULT_BATCH_SIZE,
    sequence_length: int | None = None,
    n_repeats: int = DEFAULT_REPEATS,
    progress: Progress | None = None,
) -> SpeedComparison:
    """Time forward passes of two models over the same random tokens: dense, pruned, dense, …

    Args:
        dense: a Hugging Face model, in evaluation mode, on the device to measure.
        pruned: another on the same device.
        names: names of the two models.
        batch_size: sequences at once.
        sequence_length: tokens of each; None for 256, or what the models take.
        n_repeats: timed passes of each model, at least 7; two more warm up.
        progress: receives the number of passes.

    Raises:
        UserError: if a setting is too small, or a model's context is shorter.
    """
    progress = progress or Silent()
    check_least("batch_size", batch_size, 1)
    check_least("sequence_length", sequence_length, 1)
    check_least("n_repeats", n_repeats, LEAST_REPEATS)
    models = (dense, pruned)
    length = _choose_length(models, sequence_length)
    device = next(dense.parameters()).device
    generator = torch.Generator().manual_seed(0)
    n_known = min(_vocabulary(model) for model in models)
    ids = torch.randint(n_known, (batch_size, length), generator=generator).to(device)
    progress.begin("Counting operations", 4, "passes")
    operations, peaks = [], []
    for model in models:
        operations.append(_count_operations(model, ids) / ids.numel())
        progress.advance(1)
        peaks.append(_peak_bytes(model, ids))
        progress.advance(1)
    seconds = _time_in_turns(models, ids, n_repeats, progress)
    speeds = [
        Speed(
            name=names[i],
            n_parameters=sum(p.numel() for p in model.parameters()),
            weight_bytes=_weight_bytes(model),
            operations_per_token=operations[i],
            seconds=median(seconds[i]),
            peak_bytes=peaks[i],
            tokens_per_second=ids.numel() / median(seconds[i]),
        )
        for i, model in enumerate(models)
    ]
    ratios = [after / before for before, after in zip(*seconds, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return SpeedComparison(
        dense=speeds[0],
        pruned=speeds[1],
        time_ratio=median(ratios),
        time_ratio_range=(low, high),
        batch_size=batch_size,
        sequence_length=length,
        n_repeats=n_repeats,
        n_threads=torch.get_num_threads(),
        device=str(device),
        dtype=_dtype(dense),
        memory="weights, plus the most other memory that CUDA held"
        if device.type == "cuda"
        else "weights, plus the most memory that tensors of a pass held at once",
        notes=_notes(dense, pruned),
    )


def _choose_length(models: tuple[nn.Module, nn.Module], asked: int | None) -> int:
    """Tokens of a sequence that both models take."""
    most = min((n for n in map(longest_sequence, models) if n is not None), default=None)
    if asked is None:
        return min(DEFAULT_SEQUENCE_LENGTH, most or DEFAULT_SEQUENCE_LENGTH)
    if most is not None and asked > most:
        raise SettingError(
            "sequence_length", asked, "is more than these models take", f"give {most:,} or less"
        )
    return asked


def _time_in_turns(
    models: tuple[nn.Module, nn.Module], ids: Tensor, n_repeats: int, progress: Progress
) -> tuple[list[float], list[float]]:
    """Seconds of each pass of either model, the two taking turns."""
    progress.begin("Timing", n_repeats + _N_WARMUPS, "pairs")
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(-_N_WARMUPS, n_repeats):
        for model, times in zip(models, seconds, strict=True):
            elapsed = _time(model, ids)
            if repeat >= 0:
                times.append(elapsed)
        progress.advance(1)
    progress.end()
    return seconds


def _notes(dense: nn.Module, pruned: nn.Module) -> tuple[str, ...]:
    """What makes two models less comparable than they look."""
    notes = []
    if type(dense) is not type(pruned):
        notes.append(f"{type(dense).__name__} against {type(pruned).__name__}")
    if _vocabulary(dense) != _vocabulary(pruned):
        notes.append(
            f"vocabularies of {_vocabulary(dense):,} and {_vocabulary(pruned):,} tokens: equal "
            "tokens aren't equal text"
        )
    if _dtype(dense) != _dtype(pruned):
        notes.append(f"computed in {_dtype(dense)} and {_dtype(pruned)}")
    return tuple(notes)


def _dtype(model: nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def _vocabulary(model: nn.Module) -> int:
    return int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]


def _weight_bytes(model: nn.Module) -> int:
    tensors = (*model.parameters(), *model.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@torch.inference_mode()
def _run(model: nn.Module, ids: Tensor) -> None:
    model(input_ids=ids, use_cache=False)


def _count_operations(model: nn.Module, ids: Tensor) -> int:
    """Operations of one pass; costs one, in the plainest form of attention.

    Only of that form does the counter know every operation on every device. It multiplies all
    positions with all, as faster forms need not: they may skip half of a causal mask.
    """
    counter = FlopCounterMode(display=False)
    # Not in inference mode, which passes the counter by.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(input_ids=ids, use_cache=False)
    return int(counter.get_total_flops())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _time(model: nn.Module, ids: Tensor) -> float:
    """Seconds of one pass."""
    _synchronize(ids.device)
    start = time.perf_counter()
    _run(model, ids)
    _synchronize(ids.device)
    return time.perf_counter() - start


def _peak_bytes(model: nn.Module, ids: Tensor) -> int:
    """Weights, and the most that a pass holds above what is held before it."""
    if ids.device.type == "cuda":
        _run(model, ids)
        torch.cuda.reset_peak_memory_stats(ids.device)
        before = torch.cuda.memory_allocated(ids.device)
        _run(model, ids)
        return _weight_bytes(model) + torch.cuda.max_memory_allocated(ids.device) - before
    held = _Held(model)
    # Not in inference mode, which passes it by.
    with torch.no_grad(), held:
        model(input_ids=ids, use_cache=False)
    return _weight_bytes(model) + held.most


class _Held(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, until the last view of each is gone.

    What an operation holds only while it runs is not seen. Agrees to the byte with PyTorch's
    profiler, which writes to the terminal.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.held = self.most = 0
        tensors = (*model.parameters(), *model.buffers())
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self._seen:
                    self._seen.add(storage)
                    n_bytes = storage.nbytes()
                    self.held += n_bytes
                    self.most = max(self.most, self.held)
                    weakref.finalize(storage, self._let_go, n_bytes)
        return output

    def _let_go(self, n_bytes: int) -> None:
        self.held -= n_bytes
