"""A page's order of a layer-time picture: prompts, and the settings of the picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dashboard.guest import Guest
from dashboard.layer_time.keeping import KeepingTrainer
from dashboard.layer_time.pictures import Picture
from dashboard.prompts import Prompt, as_it_can, read_prompt
from projector.corpus.sources import find_source
from projector.progress import Progress
from projector.residual.particles.pairing.aligning import align
from projector.residual.particles.pairing.cost import choose_pairs, pair_operations
from projector.residual.particles.reduction.registry import find_reduction
from projector.residual.particles.settings import ParticleSettings
from projector.residual.subject import Subject

_MOST_CHARACTERS = 40
_PARTICLE_WORDS = {
    "tokens": "tokens",
    "contributions": "contributions to tokens",
    "autoencoder": "an autoencoder's particles",
}
_PATHS = ("autoencoder", "projection")
# Operations that a core does in a few seconds.
_MOST_OPERATIONS = 10**11


@dataclass(frozen=True)
class LayerTimeOrder:
    """An order of a picture.

    Attributes:
        prompts: one or two prompts.
        kept_in: the folder that keeps the autoencoder trained for it, see
            :class:`dashboard.layer_time.keeping.KeepingTrainer`; the picture is the same without.
    """

    prompts: tuple[Prompt, ...]
    settings: ParticleSettings
    kept_in: Path | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """Identifies the order: 16 hexadecimal digits, equal for equal orders."""
        told = {**self.to_record(), "kept_in": None}
        return hashlib.sha256(json.dumps(told).encode("utf-8")).hexdigest()[:16]

    def is_quick(self, n_weights: int, ids: Sequence[Sequence[int]]) -> bool:
        """Whether it takes at most as long as a page may wait: a few seconds on a core.

        Args:
            n_weights: number of weights of the model's layers.
            ids: token ids of each prompt.
        """
        settings = self.settings
        is_plain = (
            settings.reduction == "pca"
            and settings.particles == "tokens"
            and settings.fit == "prompt"
        )
        return is_plain and _operations(n_weights, ids, settings.n_pairs) <= _MOST_OPERATIONS

    @property
    def words(self) -> str:
        """The picture, its prompts and its placement, in words."""
        settings = self.settings
        texts = " and ".join(_cut(prompt.text) for prompt in self.prompts)
        placed = find_reduction(str(settings.reduction)).words
        if settings.per_layer:
            placed += " of each layer"
        if settings.fit == "corpus":
            placed += f" fitted on {find_source(settings.source).name}"
        return f"{_PARTICLE_WORDS[settings.particles]} of {texts}, placed by {placed} in " + (
            f"{settings.dim} dimensions"
        )

    def to_record(self) -> dict[str, Any]:
        """The order as plain values for JSON."""
        settings = dict(vars(self.settings))
        for name in _PATHS:
            settings[name] = None if settings[name] is None else str(settings[name])
        return {
            "prompts": [asdict(each) for each in self.prompts],
            "settings": settings,
            "kept_in": None if self.kept_in is None else str(self.kept_in),
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> LayerTimeOrder:
        """Read the result of :meth:`to_record`."""
        settings = dict(record["settings"])
        for name in _PATHS:
            settings[name] = None if settings[name] is None else Path(settings[name])
        layers = settings["layers"]
        settings["layers"] = None if layers is None else tuple(layers)
        kept_in = record["kept_in"]
        return cls(
            tuple(Prompt(**each) for each in record["prompts"]),
            ParticleSettings(**settings),
            None if kept_in is None else Path(kept_in),
        )


def _operations(n_weights: int, ids: Sequence[Sequence[int]], n_pairs: int | None) -> int:
    """Operations of running the prompts, and of the samples for two prompts."""
    total = 2 * n_weights * sum(map(len, ids))
    if len(ids) < 2:
        return total
    a, b = ids
    shared, lengths = align(a, b), (len(a), len(b))
    if not shared.n_beginning or shared.first_unlike is None:
        return total
    n_chosen, _ = choose_pairs(n_weights, shared, *lengths, n_pairs)
    return total + n_chosen * pair_operations(n_weights, shared, *lengths)


def make_picture(
    subject: Subject,
    order: LayerTimeOrder,
    progress: Progress,
    ids: Sequence[Sequence[int]] | None = None,
) -> Picture:
    """Make the picture of an order with a model.

    Args:
        ids: token ids of each prompt, if the page has read them.

    Raises:
        UserError: see :func:`projector.residual.particles.report.layer_time`.
    """
    # Imported here: it loads SciPy and scikit-learn, which no other page needs.
    from projector.residual.particles.autoencoder.training import train_autoencoder
    from projector.residual.particles.report import layer_time

    guest = Guest(subject.loaded, subject.architecture)
    prompts = [as_it_can(guest, each) for each in order.prompts]
    chats = {each.as_chat for each in prompts}
    given: list[str | Sequence[int]] = [each.text for each in prompts]
    # Added tokens are given as ids, because decoding and reading again may give other tokens.
    if len(chats) > 1 or any(each.n_new for each in prompts):
        given = list(ids or [read_prompt(guest, each).ids for each in prompts])
    keeping = None if order.kept_in is None else KeepingTrainer(order.kept_in, train_autoencoder)
    found = layer_time(
        subject,
        given[0],
        given[1] if len(given) > 1 else None,
        chat=chats == {True} and isinstance(given[0], str),
        progress=progress,
        train=keeping or train_autoencoder,
        **vars(order.settings),
    )
    return Picture.of(found, has_old_autoencoder=keeping is not None and keeping.has_loaded)


def run_order(subject: Subject, order: LayerTimeOrder, progress: Progress) -> dict[str, Any]:
    """Run an order in a process; see :meth:`Picture.to_record`.

    Raises:
        UserError: see :func:`make_picture`.
    """
    return make_picture(subject, order, progress).to_record()


def _cut(text: str) -> str:
    """A prompt in one line, cut to fit in a sentence."""
    line = " ".join(text.split())
    return f"‘{line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1] + '…'}’"
