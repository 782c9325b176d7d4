"""Read all layers of a token from one model, or from several models of the same shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from projector.errors import SettingError, UserError, check_text, named
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from projector.projection.provenance import versions
from projector.residual.layer_image.image import (
    check_room,
    check_shapes,
    difference,
    layer_images,
)
from projector.residual.layer_image.records import LayerImages
from projector.residual.layer_image.settings import ImageSettings
from projector.residual.layer_image.tokens import Shown, choose_states
from projector.residual.particles.states import collect_states
from projector.residual.subject import Subject

__all__ = ["LayerImages", "layer_image"]


def layer_image(
    model: Subject | LoadedModel | str,
    prompt: str | Sequence[int],
    *,
    chat: bool = False,
    load: Callable[[str], Subject] = Subject.of,
    progress: Progress | None = None,
    **settings: Any,
) -> LayerImages:
    """Draw the hidden state of a token, or the mean over tokens, at every layer as an image.

    Models are loaded one after another, at most two at a time. Equal arguments give equal numbers.

    Args:
        model: a name for :func:`projector.model.loading.load_model`, a loaded model, or a subject.
        prompt: text, to which the model's first special token is prepended; or token ids.
        chat: apply the model's chat template to it, as a user's turn.
        load: function that loads every other model by its name.
        settings: the fields of :class:`ImageSettings`.

    Raises:
        SettingError: on an invalid setting; on ``against`` or ``checkpoints``, if a model has
            another shape.
        UserError: if a model or the prompt can't be read, another model's tokenizer splits the
            prompt differently, or a state isn't finite.
    """
    asked = ImageSettings(**settings)
    check_text("prompt", prompt if isinstance(prompt, str) else None)
    progress = progress or Silent()
    name, others = _others(asked)
    progress.begin("Reading models", 1 + len(others), "models")
    first = _read(Subject.of(model), prompt, asked, chat=chat)
    check_room(asked.fold, first.shape, 3 if asked.against is not None else 1)
    progress.advance(1)
    read = [first]
    for other in others:
        found = _read(load(other), prompt, asked, chat=chat, like=first, told=(name, other))
        read.append(found)
        progress.advance(1)
    progress.end()
    image, *more = layer_images(
        [each.shown.vectors for each in read],
        fold=asked.fold,
        range=asked.range,
        quantile=asked.quantile,
        models=[each.model for each in read],
        token=first.shown.words,
        prompt=prompt if isinstance(prompt, str) else "".join(first.tokens),
        note=first.shown.note,
        n_panels=3 if asked.against is not None else 1,
    )
    is_pair = asked.against is not None
    return LayerImages(
        settings=asked,
        prompt=prompt if isinstance(prompt, str) else None,
        tokens=first.tokens,
        position=first.position,
        left_out=first.shown.left_out,
        image=image,
        other=more[0] if is_pair else None,
        difference=difference(image, more[0]) if is_pair else None,
        checkpoints=() if is_pair else tuple(more),
        hashes=tuple(each.sha256 for each in read),
        versions=versions(),
    )


@dataclass(frozen=True, eq=False)
class _Read:
    """What is read of one model.

    Attributes:
        shown: the states of the token, or of the mean over tokens.
    """

    shown: Shown
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    position: int | None
    model: str
    sha256: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.shown.vectors.shape[0], self.shown.vectors.shape[1]


def _others(asked: ImageSettings) -> tuple[str, tuple[str, ...]]:
    """The other models that are read, and the setting that names them."""
    if asked.against is not None:
        return "against", (asked.against,)
    return "checkpoints", asked.checkpoints or ()


def _read(
    subject: Subject,
    prompt: str | Sequence[int],
    asked: ImageSettings,
    *,
    chat: bool,
    like: _Read | None = None,
    told: tuple[str, str] = ("", ""),
) -> _Read:
    """The states of one model.

    Args:
        like: the first model, whose tokens and shape the others have, and whose outliers a mean
            leaves out; None for the first.
        told: the setting that names this model, and its name.
    """
    ids = subject.ids_of(prompt, as_chat=chat)
    if like is not None:
        _check_like(subject, ids, like, *told)
    position = _position(asked, len(ids))
    (states,) = collect_states(subject, [ids])
    tokens = tuple(subject.pieces(ids).texts(ids))
    shown = choose_states(
        states,
        tokens,
        position,
        keep_outliers=asked.keep_outliers,
        left_out=None if like is None else like.shown.left_out,
    )
    loaded = subject.loaded
    return _Read(
        shown=shown,
        ids=tuple(ids),
        tokens=tokens,
        position=position,
        model=loaded.identifier,
        sha256=loaded.weights_sha256,
    )


def _check_like(subject: Subject, ids: Sequence[int], like: _Read, name: str, value: str) -> None:
    """Raise a UserError if a model is not of the first one's shape, or reads other tokens."""
    found = subject.architecture
    shape = (len(found.blocks) + 1, found.n_hidden)
    check_shapes(like.shape, shape, value, setting=name)
    if tuple(ids) != like.ids:
        place = next(
            (i for i, (a, b) in enumerate(zip(ids, like.ids, strict=False)) if a != b),
            min(len(ids), len(like.ids)),
        )
        raise UserError(
            f"the tokenizer of '{value}' splits the prompt differently from token {place:,} on: "
            f"give a model with the first model's tokenizer for {named(name)}",
            setting=name,
            value=value,
        )


def _position(asked: ImageSettings, n_tokens: int) -> int | None:
    """Which token is drawn; None for the mean.

    Raises:
        SettingError: on ``token``, if the prompt has no such token.
    """
    position = asked.position_or_mean()
    if position is None:
        return None
    if not -n_tokens <= position < n_tokens:
        tokens = "token" if n_tokens == 1 else "tokens"
        raise SettingError(
            "token",
            asked.token,
            f"is outside the prompt of {n_tokens:,} {tokens}",
            f"give 0 to {n_tokens - 1}, -1 to -{n_tokens} to count from the end, or mean",
        )
    return position % n_tokens
