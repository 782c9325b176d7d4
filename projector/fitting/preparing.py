"""Prepare a fit: settings, model, sites and tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from projector.corpus.batches import Corpus
from projector.corpus.documents import Document
from projector.corpus.pieces import Pieces
from projector.corpus.sources import read_documents
from projector.corpus.tokens import read_corpus
from projector.errors import SettingError, UserError, named
from projector.fitting.budget import Plan, plan_fit, reckon_needs
from projector.fitting.settings import LEAST_TOKENS, FitSettings
from projector.layouts.settings import (
    DEFAULT_LAYOUTS,
    Layout,
    check_dimensions,
    parse_layouts,
)
from projector.memory import free_memory
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.context import choose_sequence_length
from projector.model.hashing import hash_module
from projector.model.loading import (
    BUNDLED,
    LoadedModel,
    input_device,
    is_spread,
    load_model,
    widest_dtype,
)
from projector.progress import Progress, Silent
from projector.sites import MapKey
from projector.statistics.cross_layer.plan import CrossLayerPlan, plan_cross_layer
from projector.statistics.cross_layer.records import SITE
from projector.statistics.example_facts import ExampleFacts, what_fits
from projector.statistics.halves import BYTES as HALVES_BYTES


@dataclass(frozen=True)
class Job:
    """A fit that is ready to run.

    Attributes:
        layouts: the layouts of every map, in the projection's order.
        examples: how many examples are stored for each neuron; None for no examples.
        pieces: the text of the corpus's tokens; None if no examples are stored.
        cross_layer: the plan for partners across layers; None if they aren't requested.
    """

    loaded: LoadedModel
    trunk: nn.Module
    architecture: Architecture
    corpus: Corpus
    sites: list[str]
    layers: list[int]
    left_out: dict[str, str]
    settings: FitSettings
    layouts: tuple[Layout, ...]
    sequence_length: int
    packed: bool
    plan: Plan
    examples: ExampleFacts | None
    pieces: Pieces | None
    cross_layer: CrossLayerPlan | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """The values chosen for settings that were left open, by name."""
        return {
            "sites": self.sites,
            "layers": self.layers,
            "max_tokens": self.corpus.n_tokens,
            "sequence_length": self.sequence_length,
            "packed": self.packed,
            "skip_first": self.corpus.skip_first,
        }

    @property
    def widths(self) -> dict[MapKey, int]:
        """Number of neurons of every map."""
        return _widths(self.architecture, self.sites, self.layers)

    @property
    def widest(self) -> tuple[int, str, int]:
        """Layer, site and number of neurons of the widest map."""
        widths = self.widths
        layer, site = max(widths, key=lambda key: widths[key])
        return layer, site, widths[layer, site]

    @property
    def disk_bytes(self) -> int:
        """Size of the projection on disk, except for a few kilobytes of JSON."""
        n_coordinates = sum(layout.dim for layout in self.layouts)
        per_map = [4 * n * n_coordinates for n in self.widths.values()]
        if self.settings.keep_statistics:
            kept = {key: n for key, n in self.widths.items() if key not in self.plan.samples}
            per_map.append(_statistics_bytes(kept, self.settings))
        if self.examples is not None:
            per_map.append(self.examples.kept_bytes(self.widths, self.corpus))
        if self.cross_layer is not None:
            per_map.append(self.cross_layer.kept_bytes)
        return sum(per_map)

    @property
    def checkpoint_bytes(self) -> int:
        """Largest size of its checkpoint on disk during the fit.

        It is the maximum of: the sums and the ones they replace; all maps, next to the projection;
        and the activations for partners across layers.
        """
        of_partners = 0 if self.cross_layer is None else self.cross_layer.disk_bytes
        return max(2 * self.plan.sums_bytes, self.disk_bytes, of_partners)


def prepare(
    model: str | nn.Module | LoadedModel = BUNDLED,
    corpus: str | Iterable[Document] = "stdlib",
    settings: FitSettings | None = None,
    layouts: Layout | Sequence[Layout] | None = None,
    *,
    tokenizer: Any = None,
    in_memory: bool = False,
    progress: Progress | None = None,
    **loading: Any,
) -> Job:
    """Load the model, find its sites, and tokenize the corpus.

    Args:
        model: ``bundled``, a local folder, a hub id; or a model in memory, with its ``tokenizer``.
        corpus: see :func:`projector.corpus.sources.read_documents`, or the documents themselves.
        layouts: one layout or several; ``DEFAULT_LAYOUTS`` by default.
        in_memory: whether results stay in memory and count towards the memory budget.
        **loading: ``revision``, ``device``, ``device_map``, ``dtype`` and ``trust_remote_code`` of
            :func:`projector.model.loading.load_model`.

    Raises:
        UserError: for anything that can't be fitted, before any work is done.
    """
    settings, progress = settings or FitSettings(), progress or Silent()
    chosen = _chosen(layouts)
    if isinstance(corpus, str):
        # Files that are not there are told of before a model is loaded.
        read_documents(corpus)
    progress.begin("Loading the model", None, "")
    loaded = _loaded(model, tokenizer, loading)
    # Without the head: no site is past the last block.
    trunk = getattr(loaded.model, "base_model", loaded.model)
    architecture = find_architecture(trunk)
    sites, left_out = architecture.choose_sites(settings.sites)
    layers = architecture.choose_layers(settings.layers)
    sequence_length = choose_sequence_length(
        loaded.model, loaded.tokenizer, settings.sequence_length
    )
    is_causal = architecture.is_causal
    packed = is_causal if settings.packed is None else settings.packed
    progress.begin("Reading the corpus", None, "documents")
    tokens = read_corpus(
        corpus,
        loaded.tokenizer,
        sequence_length=sequence_length,
        max_tokens=settings.max_tokens,
        skip_first=int(is_causal) if settings.skip_first is None else settings.skip_first,
        packed=packed,
        advance=progress.advance,
    )
    progress.end()
    _check_corpus(tokens, trunk)
    pieces = _pieces_of(tokens, loaded.tokenizer) if settings.keep_examples else None
    widths = _widths(architecture, sites, layers)
    check_dimensions(chosen, widths.values())
    # As much as statistics would take of the disk, whether they are kept or not.
    allowed = _statistics_bytes(widths, settings)
    examples = what_fits(widths, tokens, allowed) if settings.keep_examples else None
    needs = reckon_needs(
        widths,
        correlation=settings.correlation,
        layouts=chosen,
        device=input_device(trunk),
        n_positions=settings.batch_size * min(sequence_length, len(tokens.ids)),
        widest=_widest(architecture),
        in_memory=in_memory,
        keeps_statistics=settings.keep_statistics,
        examples=examples,
    )
    plan = plan_fit(
        needs,
        widths,
        settings.memory_budget,
        free_memory(input_device(trunk), spread=is_spread(trunk)),
        n_tokens=tokens.n_tokens,
        itemsize=widest_dtype(trunk).itemsize,
    )
    found = (loaded, trunk, architecture, tokens, sites, layers, left_out, settings)
    return _with_cross_layer(Job(*found, chosen, sequence_length, packed, plan, examples, pieces))


def _with_cross_layer(job: Job) -> Job:
    """The job with a plan of how partners across layers are found, where they are asked for.

    Raises:
        SettingError: if the fit has no MLP neurons, or those of one layer only.
        UserError: if a tile does not fit in memory.
    """
    if not job.settings.cross_layer:
        return job
    if SITE not in job.sites:
        why = f" ({job.left_out[SITE]})" if SITE in job.left_out else ""
        raise SettingError(
            "sites",
            ",".join(job.sites),
            f"has no {SITE}{why}, and partners across layers need MLP neurons",
            f"add {SITE}, or leave {named('cross_layer', True)} out",
        )
    trunk = job.trunk
    plan = plan_cross_layer(
        job.corpus,
        {layer: n for (layer, site), n in job.widths.items() if site == SITE},
        most_tokens=job.settings.cross_layer_tokens,
        n_positions=job.settings.batch_size * min(job.sequence_length, len(job.corpus.ids)),
        itemsize=widest_dtype(trunk).itemsize,
        widest=_widest(job.architecture),
        budget=job.settings.memory_budget,
        free=free_memory(input_device(trunk), spread=is_spread(trunk)),
    )
    return replace(job, cross_layer=plan)


def _widest(architecture: Architecture) -> int:
    """Neurons of the model's widest site, whether it is fitted or not."""
    return max(max(block.widths.values()) for block in architecture.blocks)


def _chosen(layouts: Layout | Sequence[Layout] | None) -> tuple[Layout, ...]:
    """What was asked for, or the usual ones."""
    asked = (layouts,) if isinstance(layouts, Layout) else tuple(layouts or ())
    return asked or parse_layouts(DEFAULT_LAYOUTS)


def _loaded(
    model: str | nn.Module | LoadedModel, tokenizer: Any, loading: dict[str, Any]
) -> LoadedModel:
    """The model, wherever it is."""
    if isinstance(model, LoadedModel):
        return model
    if not isinstance(model, nn.Module):
        return load_model(model, keep_bf16=True, **loading)
    if tokenizer is None:
        raise UserError(
            f"a model in memory needs its tokenizer: pass {named('tokenizer')}", setting="tokenizer"
        )
    name = getattr(model, "name_or_path", "") or type(model).__name__
    identifier = Path(name).name if Path(name).exists() else name
    return LoadedModel(model, tokenizer, identifier, hash_module(model))


def _check_corpus(tokens: Corpus, trunk: nn.Module) -> None:
    """Raise a UserError if a corpus has too few tokens, or tokens that the model does not know."""
    if tokens.n_tokens < LEAST_TOKENS:
        raise UserError(
            f"corpus '{tokens.source}' has {tokens.n_tokens} tokens to count, but correlations "
            f"need at least {LEAST_TOKENS}: give more text"
        )
    vocabulary = trunk.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if int(tokens.ids.max()) >= vocabulary:
        raise UserError(
            f"the tokenizer gives token id {int(tokens.ids.max()):,}, but the model has "
            f"{vocabulary:,} tokens: give the model's own tokenizer"
        )


def _pieces_of(tokens: Corpus, tokenizer: Any) -> Pieces:
    """The text of a corpus' tokens.

    Raises:
        UserError: on ``keep_examples``, where the tokenizer does not tell it.
    """
    try:
        return Pieces.of_tokenizer(tokenizer, tokens.distinct)
    except Exception as error:
        raise UserError(
            f"the text of single tokens can't be read from {type(tokenizer).__name__} "
            f"({type(error).__name__}: {error}), but examples need it: add "
            f"{named('keep_examples', False)}, or give another tokenizer",
            setting="keep_examples",
            value=True,
        ) from error


def _widths(architecture: Architecture, sites: list[str], layers: list[int]) -> dict[MapKey, int]:
    return {
        (layer, site): architecture.blocks[layer].widths[site]
        for layer, site in architecture.taps(sites, layers)
    }


def _statistics_bytes(widths: Mapping[MapKey, int], settings: FitSettings) -> int:
    """What means, covariances and halves of these maps take of the disk."""
    n_matrices = 2 if settings.correlation == "per-sequence" else 1
    per_map = [4 * n * (n_matrices * n + 1) + HALVES_BYTES * n * n for n in widths.values()]
    return sum(per_map)
