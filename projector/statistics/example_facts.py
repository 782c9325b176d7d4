"""Facts about the stored examples of a projection: their number, and what was cut; no tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from projector.storage.entries import Entry, Wrong
from projector.storage.headers import Header

if TYPE_CHECKING:
    from projector.corpus.batches import Corpus

EXAMPLES_FILE = "examples.safetensors"
FORMAT, FORMAT_VERSION = "transformer-projection-kept-examples", 1
# Of the file's metadata, the one that holds the facts.
METADATA = "examples"
# Of one map and of all of them: the names of tensors, and their types as the format calls them.
MAP_TENSORS = {
    "highest": "F32",
    "highest_at": "I32",
    "lowest": "F32",
    "lowest_at": "I32",
    "sample": "F16",
}
SHARED_TENSORS = {"ids": "I32", "starts": "I64", "sample_at": "I32"}

N_EXTREMES, N_SAMPLE = 10, 1024
# Tokens before and after the one that is shown: most neurons of causal models answer to what is
# before it.
N_BEFORE, N_AFTER = 24, 8
# As little as is kept where the disk is to hold less.
_LEAST_SAMPLE, _LEAST_CONTEXT, _LEAST_EXTREMES = 64, 8, 1
# Files of this size are not cut: a disk's own records take nearly as much.
_FREE_BYTES = 256 << 10
# All tokens of a corpus are kept where they take no more than this share of what is allowed.
_SHARE_OF_IDS = 1 / 16
_COUNTS = ("n_extremes", "n_sample", "n_before", "n_after")
_ID_BYTES, _VALUE_BYTES, _PLACE_BYTES, _SAMPLE_BYTES = 4, 4, 4, 2
# Of one token's text: its id, where it ends, whether it is special, and some seven letters.
_PIECE_BYTES = 24


@dataclass(frozen=True)
class ExampleFacts:
    """How many examples are stored for each neuron.

    Attributes:
        n_extremes: k, the number of highest tokens of each neuron, and also of lowest tokens.
        n_sample: M, the number of tokens drawn evenly over the corpus.
        n_before, n_after: number of context tokens before and after each, within its sequence.
        is_whole: whether all tokens of the corpus are stored, so that the context is the whole
            sequence.
        cut: the reductions made to fit the size limit, such as "512 tokens in the sample, not
            1,024".
        source: source of the text, as in :class:`projector.corpus.batches.Corpus`; None if unknown.
    """

    n_extremes: int = N_EXTREMES
    n_sample: int = N_SAMPLE
    n_before: int = N_BEFORE
    n_after: int = N_AFTER
    is_whole: bool = True
    cut: tuple[str, ...] = ()
    source: str | None = None

    @property
    def n_context(self) -> int:
        """Number of context tokens around each example."""
        return self.n_before + self.n_after

    def gathered_bytes(self, n_neurons: int) -> int:
        """Memory of one map while its examples are gathered, which is also its size in a
        checkpoint.
        """
        of_extremes = 2 * self.n_extremes * (_VALUE_BYTES + 8)
        return n_neurons * (of_extremes + _SAMPLE_BYTES * self.n_sample)

    def kept_bytes(self, widths: Mapping[Any, int], corpus: Corpus) -> int:
        """Upper bound of the file size.

        Args:
            widths: number of neurons of each map.
        """
        n_neurons, n_ids = sum(widths.values()), len(corpus.ids)
        of_one = 2 * self.n_extremes * (_VALUE_BYTES + _PLACE_BYTES)
        n_kept = n_ids
        if not self.is_whole:
            n_shown = 2 * self.n_extremes * n_neurons + self.n_sample
            n_kept = min(n_ids, n_shown * (1 + self.n_context))
        n_bytes = n_neurons * (of_one + _SAMPLE_BYTES * self.n_sample)
        n_bytes += _ID_BYTES * n_kept + _PLACE_BYTES * self.n_sample
        return n_bytes + _PIECE_BYTES * min(corpus.n_distinct, n_kept)

    def as_metadata(self) -> dict[str, str]:
        """The metadata of the file."""
        facts = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        return {METADATA: json.dumps(facts, ensure_ascii=False)}

    @classmethod
    def from_header(cls, header: Header, widths: Mapping[str, int]) -> ExampleFacts:
        """Read the facts of a file, and check the shapes of its tensors against them.

        Args:
            widths: number of neurons of each map, by name.

        Raises:
            Wrong: if the shapes differ, or the metadata can't be read.
        """
        try:
            content = json.loads(header.metadata.get(METADATA, "{}"))
        except ValueError as error:
            raise Wrong("its metadata can't be read") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise Wrong("it isn't a file of examples that this program wrote")
        entry = Entry(content)
        if entry.count("format_version") != FORMAT_VERSION:
            raise Wrong(f"it has format version {content['format_version']}: upgrade the program")
        facts = cls(
            **{name: entry.count(name) for name in _COUNTS},
            is_whole=entry.truth("is_whole"),
            cut=entry.texts("cut"),
            source=entry.maybe_text("source"),
        )
        expected: dict[str, tuple[tuple[int, ...], str]] = {}
        for name, n in widths.items():
            for each, kind in MAP_TENSORS.items():
                shape = (facts.n_sample, n) if each == "sample" else (n, facts.n_extremes)
                expected[f"{name}.{each}"] = (shape, kind)
        n_starts = math.prod(header.shapes.get("starts", ()))
        n_ids = math.prod(header.shapes.get("ids", ()))
        shapes = {"ids": (n_ids,), "starts": (n_starts,), "sample_at": (facts.n_sample,)}
        expected |= {each: (shapes[each], kind) for each, kind in SHARED_TENSORS.items()}
        for name, (size, kind) in expected.items():
            found = header.shapes.get(name), header.kinds.get(name)
            if found != (size, kind):
                raise Wrong(
                    f"{name} has shape {found[0]} and type {found[1]}, not {size} and {kind}"
                )
        return facts


def what_fits(widths: Mapping[Any, int], corpus: Corpus, allowed: int) -> ExampleFacts:
    """Choose how many examples to store so that the file has at most ``allowed`` bytes.

    The sample is reduced first, then the context, then the extremes, each down to a minimum. Small
    files are not reduced.

    Args:
        widths: number of neurons of each map.
    """
    allowed = max(allowed, _FREE_BYTES)
    wanted = ExampleFacts(
        n_sample=min(N_SAMPLE, corpus.n_tokens),
        is_whole=_ID_BYTES * len(corpus.ids) <= allowed * _SHARE_OF_IDS,
        source=corpus.source,
    )
    facts = wanted

    def is_too_much() -> bool:
        return facts.kept_bytes(widths, corpus) > allowed

    while is_too_much() and facts.n_sample > _LEAST_SAMPLE:
        facts = replace(facts, n_sample=max(_LEAST_SAMPLE, facts.n_sample - 16))
    while is_too_much() and facts.n_context > _LEAST_CONTEXT and not facts.is_whole:
        facts = replace(facts, n_before=facts.n_before - 3, n_after=facts.n_after - 1)
    while is_too_much() and facts.n_extremes > _LEAST_EXTREMES:
        facts = replace(facts, n_extremes=facts.n_extremes - 1)
    return replace(facts, cut=tuple(_cuts(facts, wanted)))


def _cuts(facts: ExampleFacts, wanted: ExampleFacts) -> list[str]:
    counts = (
        (facts.n_sample, wanted.n_sample, "tokens in the sample"),
        (facts.n_context, wanted.n_context, "tokens of context"),
        (facts.n_extremes, wanted.n_extremes, "highest and lowest tokens of each neuron"),
    )
    return [f"{n:,} {what}, not {of:,}" for n, of, what in counts if n < of]
