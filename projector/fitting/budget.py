"""What a fit may use of disk and memory, and what is said when that does not suffice."""

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
    """Raise a UserError if the disk of ``folder`` has too few bytes free for a projection.

    Args:
        beside: what its checkpoint takes until it is done.
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
        sums: of every map, while it is gathered.
        placing: of every map, while it is placed.
        examples: of every map, what drives its neurons, from gathering until it is placed.
        results: what is found of every map, where that is kept in memory.
        batch: a batch under way.
        libraries: at any time.
        may_sample: whether a map can do without a matrix.
        is_on_cuda: whether maps are placed there.
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
        """The most at one time, where maps are gathered in these passes."""
        most = 0
        for keys in passes:
            working = max(self.batch, *(self.placing[key] for key in keys))
            most = max(most, self.gathered(keys) + working)
        return most + self.libraries + sum(self.results.values())

    def gathered(self, keys: Iterable[MapKey]) -> int:
        """What is held of these maps when the corpus is over, which checkpoints hold."""
        return sum(self.sums[key] + self.examples[key] for key in keys)

    def without_matrix(self, key: MapKey, n_neurons: int, n_tokens: int, itemsize: int) -> Needs:
        """The same where this map keeps a sample of ``n_tokens``, and no matrix."""
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
    """How the maps of a fit share the memory.

    Attributes:
        room: bytes that all of it may take.
        passes: maps that are gathered together, pass by pass over the corpus.
        samples: tokens to draw for maps that have too many neurons for a matrix.
        n_bytes: the most at one time.
        sums_bytes: of it, what is gathered at one time, which checkpoints hold.
    """

    room: int
    passes: tuple[tuple[MapKey, ...], ...]
    samples: dict[MapKey, int]
    n_bytes: int
    sums_bytes: int

    def as_json(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "samples": [[*key, n] for key, n in self.samples.items()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """What :meth:`as_json` gave."""
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
    """What a fit takes of memory, from the neurons of its maps.

    Args:
        widths: neurons of each map.
        layouts: how each map is placed, one layout after another.
        device: where its sums are kept.
        n_positions: tokens of a batch, padding included.
        widest: neurons of the model's widest site, whether it is fitted or not.
        in_memory: whether what is found stays in memory, for there is no folder to write it to.
        keeps_statistics: whether statistics are among that.
        examples: how many examples are gathered of each neuron; None for none.
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
    """Which maps to gather together, pass by pass over the corpus: as many as there is room for.

    A map that there is no room for even alone does without a matrix of correlations: it keeps as
    many tokens as there is room for, fewer than twice its neurons.

    Args:
        budget: bytes that a fit may take beside the model; None for what is free, less a margin.
        free: bytes that are free.
        n_tokens: tokens of the corpus.
        itemsize: bytes of a number that the model computes.

    Raises:
        UserError: if there is no room for one map.
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
        "are free"
    )
    if budget is not None:
        what = f"the budget is {size_text(budget)}"
        remedies.insert(0, f"raise {named('memory_budget')}")
    return UserError(
        f"out of memory: to fit layer {layer} {site} alone takes {least} "
        f"({', '.join(parts)}), and {what}: {', or '.join(remedies)}"
    )
