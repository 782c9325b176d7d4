"""The disk and memory limits of a fit, and the errors if they are exceeded."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from projector.errors import UserError, named
from projector.layouts.kernels.tiled import buffer_bytes
from projector.layouts.settings import Layout
from projector.memory import enough_text, size_text
from projector.sites import MapKey
from projector.statistics.covariance import packed_numel
from projector.statistics.example_facts import ExampleFacts
from projector.statistics.halves import BYTES as HALVES_BYTES
from projector.statistics.sampling import STANDARDIZED_BYTES

# Of what is free, what a fit takes unasked.
_SHARE_OF_FREE = 0.9
# While the figures of one map of N neurons are measured: bytes for each of its N² pairs, up to so
# many. Measured. What placing takes before that, the records of the methods tell.
_FIGURES_BYTES, _MOST_FIGURES_BYTES = 84, 80_000_000
# Of placing without a matrix: blocks of rows, and what is widened of half precision.
_WITHOUT_MATRIX_BYTES = 400_000_000
# Token ids, buffers, and what libraries load and compile whatever the method.
_LIBRARIES_BYTES = 96 << 20
# Correlations of fewer tokens are hardly a map.
_LEAST_SAMPLE = 1000


def check_disk(n_bytes: int, folder: Path, *, beside: int = 0) -> None:
    """Raise a UserError if the disk of ``folder`` has too little free space for a projection.

    Args:
        beside: bytes of its checkpoint during the fit.
    """
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if n_bytes + beside > free:
        until_done = f" and up to {size_text(beside)} more until it is done" if beside else ""
        raise UserError(
            f"no space left: the projection takes {size_text(n_bytes)}{until_done}, and "
            f"'{existing}' has {size_text(free)} free: add "
            f"{named('keep_statistics', False)} or {named('keep_examples', False)}, or choose "
            f"fewer {named('layers')} or {named('sites')}"
        )


@dataclass(frozen=True)
class Needs:
    """Memory that a fit takes in addition to the loaded model, in bytes.

    Attributes:
        sums: for each map, while it is gathered.
        placing: for each map, while it is laid out.
        examples: for each map, the examples of its neurons, from gathering until it is laid out.
        results: for each map, its results, if they are kept in memory.
        batch: a batch in the model.
        libraries: libraries, at any time.
        may_sample: whether a map may use a sample of tokens instead of a matrix.
        is_on_cuda: whether maps are laid out on a CUDA device.
    """

    sums: dict[MapKey, int]
    placing: dict[MapKey, int]
    results: dict[MapKey, int]
    batch: int
    libraries: int
    may_sample: bool
    examples: dict[MapKey, int]
    is_on_cuda: bool = False

    def of(self, passes: Iterable[Sequence[MapKey]]) -> int:
        """Peak memory if maps are gathered in these passes."""
        most = 0
        for keys in passes:
            working = max(self.batch, *(self.placing[key] for key in keys))
            most = max(most, self.gathered(keys) + working)
        return most + self.libraries + sum(self.results.values())

    def gathered(self, keys: Iterable[MapKey]) -> int:
        """Memory of these maps at the end of the corpus, which is also their size in
        checkpoints.
        """
        return sum(self.sums[key] + self.examples[key] for key in keys)

    def without_matrix(self, key: MapKey, n_neurons: int, n_tokens: int, itemsize: int) -> Needs:
        """The needs if this map keeps a sample of ``n_tokens`` instead of a matrix."""
        n_numbers = n_neurons * n_tokens
        placing = STANDARDIZED_BYTES * n_numbers + _WITHOUT_MATRIX_BYTES
        # The sums of each block of neurons, of up to eight dimensions and stress.
        placing += 9 * 4 * n_neurons**2 // 64 if self.is_on_cuda else 0
        return replace(
            self,
            sums={**self.sums, key: itemsize * n_numbers},
            placing={**self.placing, key: placing},
            # Of what it finds its examples alone are kept.
            results={**self.results, key: min(self.results[key], self.examples[key])},
        )


@dataclass(frozen=True)
class Plan:
    """How the maps of a fit share memory.

    Attributes:
        room: memory limit, in bytes.
        passes: the maps to gather together in each pass over the corpus.
        samples: number of tokens to draw, for maps with too many neurons for a matrix.
        n_bytes: peak memory.
        sums_bytes: the part of it for sums, which is also their size in checkpoints.
    """

    room: int
    passes: tuple[tuple[MapKey, ...], ...]
    samples: dict[MapKey, int]
    n_bytes: int
    sums_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**asdict(self), "samples": [[*key, n] for key, n in self.samples.items()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """Restore the result of :meth:`as_json`."""
        return cls(
            int(value["room"]),
            tuple(tuple((int(layer), str(site)) for layer, site in p) for p in value["passes"]),
            {(int(layer), str(site)): int(n) for layer, site, n in value["samples"]},
            int(value["n_bytes"]),
            int(value["sums_bytes"]),
        )


def reckon_needs(
    widths: Mapping[MapKey, int],
    *,
    correlation: str,
    layouts: Sequence[Layout],
    device: torch.device,
    n_positions: int,
    widest: int,
    in_memory: bool,
    keeps_statistics: bool = True,
    examples: ExampleFacts | None = None,
) -> Needs:
    """Estimate the memory of a fit from the sizes of its maps.

    Args:
        widths: number of neurons of each map.
        layouts: the layouts of each map, computed one after another.
        device: the device of its sums.
        n_positions: number of tokens per batch, padding included.
        widest: number of neurons of the model's widest site, even if it isn't fitted.
        in_memory: whether results stay in memory because there is no output folder.
        keeps_statistics: whether the results include statistics.
        examples: how many examples are gathered for each neuron; None for no examples.
    """
    # Methods of two objectives may share a name.
    methods = {(layout.objective, layout.solver): layout.how for layout in layouts}.values()
    pair_bytes = max(how.pair_bytes for how in methods)
    n_sums = 3 if correlation == "per-sequence" else 1
    sums, placing = {}, {}
    for key, n in widths.items():
        packed = 8 * packed_numel(n, device)
        sums[key] = 2 * n_sums * packed
        if any(how.trains for how in methods):
            # Each batch's own sums, its correlations in both precisions, and what autograd keeps.
            sums[key] += packed + (8 + 4 + 16) * n * n
        placing[key] = (pair_bytes + 12 * (n_sums > 1)) * n * n
        placing[key] += min(_FIGURES_BYTES * n * n, _MOST_FIGURES_BYTES)
        placing[key] += buffer_bytes(n) if device.type == "cpu" else 0
    # Of the MLP under way its gate, its neurons before and after; and the rows of a half, twice.
    batch = n_positions * widest * (4 * 4 + 4)
    of_examples = {
        key: 0 if examples is None else examples.gathered_bytes(n) for key, n in widths.items()
    }
    results = dict.fromkeys(widths, 0)
    for key, n in widths.items() if in_memory else ():
        statistics = (4 + HALVES_BYTES) * n * n if keeps_statistics else 0
        results[key] = statistics + 32 * n * len(layouts) + of_examples[key]
    may_sample = all(how.may_sample for how in methods) and correlation == "pooled"
    libraries = _LIBRARIES_BYTES + sum(how.library_bytes for how in methods)
    is_on_cuda = device.type == "cuda"
    found = (sums, placing, results, batch, libraries, may_sample, of_examples)
    return Needs(*found, is_on_cuda)


def plan_fit(
    needs: Needs,
    widths: Mapping[MapKey, int],
    budget: int | None,
    free: int,
    *,
    n_tokens: int,
    itemsize: int,
) -> Plan:
    """Choose the maps to gather in each pass over the corpus: as many as fit in memory.

    A map that doesn't fit even alone is computed without a correlation matrix: it keeps a sample of
    as many tokens as fit, fewer than twice its number of neurons.

    Args:
        budget: memory limit in bytes, in addition to the model; None for the free memory less a
            margin.
        free: free memory in bytes.
        n_tokens: number of tokens in the corpus.
        itemsize: bytes per number in the model's dtype.

    Raises:
        UserError: if a map doesn't fit in memory.
    """
    room = int(_SHARE_OF_FREE * free) if budget is None else budget
    samples: dict[MapKey, int] = {}
    whole = needs
    # The widest first: what is not kept of it in memory is room for others.
    for key in sorted(widths, key=lambda key: -widths[key]):
        if needs.may_sample and needs.of([[key]]) > room:
            samples[key] = 0
            needs = needs.without_matrix(key, widths[key], 0, itemsize)
    for key in samples:
        n = widths[key]
        left = room - needs.libraries - sum(needs.results.values()) - needs.examples[key]
        n_drawn = min(
            # While they are gathered, and while they are placed.
            (left - needs.batch) // (n * itemsize),
            (left - needs.placing[key]) // (n * (itemsize + STANDARDIZED_BYTES)),
        )
        least_drawn = min(_LEAST_SAMPLE, n_tokens)
        if n_drawn < least_drawn:
            sampled = needs.without_matrix(key, n, least_drawn, itemsize)
            is_less = sampled.of([[key]]) < whole.of([[key]])
            raise _too_little(sampled if is_less else whole, key, is_less, budget, free)
        if budget is None:
            # What is free changes from one moment to the next, and the sample decides the map.
            n_drawn = max(least_drawn, 1 << (n_drawn.bit_length() - 1))
        samples[key] = min(n_drawn, 2 * n - 1, n_tokens)
    for key, n_drawn in samples.items():
        needs = needs.without_matrix(key, widths[key], n_drawn, itemsize)
    samples = {key: samples[key] for key in widths if key in samples}
    passes: list[list[MapKey]] = [[]]
    for key in widths:
        if passes[-1] and needs.of([[*passes[-1], key]]) > room:
            passes.append([])
        passes[-1].append(key)
        if needs.of(passes[-1:]) > room:
            raise _too_little(needs, key, False, budget, free)
    sums_bytes = max(needs.gathered(keys) for keys in passes)
    return Plan(room, tuple(map(tuple, passes)), samples, needs.of(passes), sums_bytes)


def _too_little(
    needs: Needs, key: MapKey, is_sampled: bool, budget: int | None, free: int
) -> UserError:
    """What to say where there is no room for a map.

    Args:
        needs: with which there would be.
        is_sampled: whether the map would do without a matrix then.
    """
    (layer, site), batch, placing = key, needs.batch, needs.placing[key]
    least = enough_text(needs.of([[key]])) + " in addition to the model"
    if is_sampled:
        least += " even without a matrix of its correlations"
    parts = [
        f"{size_text(needs.libraries)} for libraries",
        f"{size_text(needs.sums[key])} for sums",
    ]
    if needs.examples[key]:
        parts.append(f"{size_text(needs.examples[key])} for examples")
    remedies = [f"choose narrower {named('sites')}"]
    if batch > placing:
        parts.append(f"{size_text(batch)} for a batch")
        remedies.append(f"lower {named('batch_size')}")
    else:
        parts.append(f"{size_text(placing)} to place it")
    if results := sum(needs.results.values()):
        parts.append(f"{size_text(results)} for results")
        remedies.append(f"choose fewer {named('layers')}")
    what = (
        f"a fit uses at most {size_text(_SHARE_OF_FREE * free)} of the {size_text(free)} that "
        "is free"
    )
    if budget is not None:
        what = f"the budget is {size_text(budget)}"
        remedies.insert(0, f"raise {named('memory_budget')}")
    return UserError(
        f"out of memory: fitting layer {layer} {site} alone takes {least} "
        f"({', '.join(parts)}), and {what}: {', or '.join(remedies)}"
    )
