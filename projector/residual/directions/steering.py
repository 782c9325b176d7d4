"""Generation with a direction added to the stream, compared with none and with a random one.

Activation addition (Turner et al. 2023, arXiv:2308.10248): at each token of the prompt and of the
continuation, a multiple of the direction is added at the point where it was measured. Generation is
greedy, so the same prompt gives the same text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from projector.corpus.pieces import Pieces
from projector.errors import SettingError, UserError, check_least, check_seed, check_text, is_number
from projector.model.caching import cache_of, with_cache
from projector.model.capture import evaluating
from projector.model.context import longest_sequence
from projector.model.intervention import Intervention, Shift, intervene
from projector.model.loading import input_device
from projector.progress import Progress, Silent
from projector.residual.directions.artifact import Directions, find_directions, list_directions
from projector.residual.directions.finding import random_directions
from projector.residual.outliers import TIMES_USUAL
from projector.residual.subject import Subject

_STREAM = "resid_post"
_ONE_TOKEN = "the prompt has one token only, and nothing predicts it"


@dataclass(frozen=True)
class Continuation:
    """A greedy continuation of a prompt.

    Attributes:
        change: the vector added to the stream: ``none``, ``direction`` or ``random``.
        ids: the tokens after the prompt; the last one may be the end-of-text token.
        text: their text, without special tokens.
        log_perplexity: log-perplexity of the prompt itself, in nats per token; None for a prompt of
            one token.
    """

    change: str
    ids: tuple[int, ...]
    text: str
    log_perplexity: float | None


@dataclass(frozen=True)
class Steered:
    """A prompt continued without a direction, with it, and with a random direction of the same
    norm.

    Attributes:
        model: its identifier.
        prompt: the text of the prompt's tokens. prompt_ids: the token ids.
        layer, stream: where the direction is added.
        scale: factor of the direction.
        norm: ‖direction‖. usual_norm: the median norm of tokens there.
        pair: name of the pair of sets. positive_name, negative_name: names of the two sets.
        continuations: the three continuations, in this order.
        reason: why the prompt has no perplexity; None if it has one.
        notes: caveats for reading the texts.
    """

    model: str
    prompt: str
    prompt_ids: tuple[int, ...]
    layer: int
    stream: str
    scale: float
    norm: float
    usual_norm: float
    pair: str
    positive_name: str
    negative_name: str
    continuations: tuple[Continuation, Continuation, Continuation]
    reason: str | None
    notes: tuple[str, ...] = ()

    @property
    def plain(self) -> Continuation:
        """The continuation without the direction."""
        return self.continuations[0]

    @property
    def steered(self) -> Continuation:
        """The continuation with the direction."""
        return self.continuations[1]

    @property
    def random(self) -> Continuation:
        """The continuation with a random direction of the same norm."""
        return self.continuations[2]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            **vars(self),
            "prompt_ids": list(self.prompt_ids),
            "notes": list(self.notes),
            "continuations": [{**vars(each), "ids": list(each.ids)} for each in self.continuations],
        }


def steer(
    model: Subject | str,
    prompt: str | Sequence[int],
    direction: Directions | Path | str,
    *,
    layer: int,
    scale: float = 1.0,
    chat: bool = False,
    n_new: int = 40,
    seed: int = 0,
    progress: Progress | None = None,
) -> Steered:
    """Continue a prompt with a saved direction added to the stream after a layer.

    Tokens with a norm many times the median, such as a model's first token, are left unchanged
    (:meth:`Directions.most_norm`), in the prompt and in the continuation.

    Args:
        model: a name for :func:`projector.model.loading.load_model`, or a subject.
        prompt: text, to which the model's first special token is prepended; or token ids of the
            model.
        direction: directions, or a folder with directions; see :func:`find_directions`.
        layer: the layer of the direction, after which it is added.
        scale: factor of the difference of means; negative values lead towards the negative set.
        chat: apply the model's chat template to the prompt, as a user's turn.
        n_new: largest number of tokens to add.
        seed: seed of the random direction.

    Raises:
        SettingError: on ``scale``, if it isn't finite, or so large that logits aren't finite; on
            ``layer``, if it has no direction; on ``n_new`` or ``seed``; on ``direction``, if it is
            invalid, or belongs to another model.
        UserError: for an encoder, a prompt that exceeds the context with the added tokens, a chat
            without a template, or a model with non-finite logits.
    """
    check_steering(scale=scale, n_new=n_new, seed=seed)
    check_text("prompt", prompt if isinstance(prompt, str) else None)
    check_direction(direction, layer)
    subject, progress = Subject.of(model), progress or Silent()
    if isinstance(direction, Directions):
        direction.check(subject)
    else:
        direction = find_directions(direction, subject)
    vector = direction.at_layer(layer, _STREAM)
    _check_generates(subject)
    ids = subject.ids_of(prompt, as_chat=chat)
    _check_room(subject, len(ids), n_new)
    tap = subject.architecture.blocks[layer].taps[_STREAM]
    most = direction.most_norm(layer, _STREAM)
    (drawn,) = random_directions(vector, 1, seed)
    changes: dict[str, list[Intervention]] = {
        "none": [],
        "direction": [Shift(tap, vector, float(scale), most)],
        "random": [Shift(tap, drawn, float(scale), most)],
    }
    found = _continuations(subject, ids, n_new, changes, scale, progress)
    pieces = Pieces.of_tokenizer(subject.loaded.tokenizer, ids)
    return Steered(
        model=subject.loaded.identifier,
        prompt="".join(pieces.texts(ids)),
        prompt_ids=tuple(ids),
        layer=layer,
        stream=_STREAM,
        scale=float(scale),
        norm=float(vector.norm()),
        usual_norm=direction.usual_norms[layer, _STREAM],
        pair=direction.pair,
        positive_name=direction.positive_name,
        negative_name=direction.negative_name,
        continuations=(found[0], found[1], found[2]),
        reason=_ONE_TOKEN if len(ids) == 1 else None,
        notes=_notes(abs(scale) * float(vector.norm()), direction.usual_norms[layer, _STREAM]),
    )


def _continuations(
    subject: Subject,
    ids: Sequence[int],
    n_new: int,
    changes: Mapping[str, Sequence[Intervention]],
    scale: float,
    progress: Progress,
) -> list[Continuation]:
    progress.begin("Generating", len(changes) * n_new, "tokens")
    found = []
    for name, interventions in changes.items():
        try:
            made, nats = generate(subject, ids, n_new, interventions)
        except ArithmeticError as error:
            raise _not_finite(subject, scale if interventions else None) from error
        progress.advance(n_new)
        text = str(subject.loaded.tokenizer.decode(made, skip_special_tokens=True))
        found.append(Continuation(name, tuple(made), text, nats))
    progress.end()
    return found


def _notes(added: float, usual: float) -> tuple[str, ...]:
    """A sentence where what is added is itself of outlying norm."""
    if added <= TIMES_USUAL * usual:
        return ()
    times = f"{added / usual:.3g}" if usual else "infinitely many"
    return (
        f"The added vector is {times} times as long as the median token there, so little is "
        "left of the prompt: the text shows the effect of the direction alone. Give a smaller "
        "scale.",
    )


def _not_finite(subject: Subject, scale: float | None) -> UserError:
    if scale is None:
        name = subject.loaded.identifier
        return UserError(
            f"'{name}' gives logits that are not finite, without any direction: load it in another "
            "data type"
        )
    return SettingError(
        "scale", scale, "makes the model's logits not finite", "give one closer to 0"
    )


def check_direction(direction: Directions | Path | str, layer: int) -> None:
    """Raise a UserError on ``direction`` if a folder holds no directions, or on ``layer`` if it has
    none.

    This needs no model.
    """
    found = [direction] if isinstance(direction, Directions) else list_directions(direction)
    if not any((layer, _STREAM) in each.vectors for each in found):
        max(found, key=lambda each: len(each.layers)).at_layer(layer, _STREAM)


def check_steering(*, scale: float, n_new: int, seed: int) -> None:
    """Raise a SettingError on a value that is invalid for every model."""
    if not is_number(scale) or not math.isfinite(scale):
        raise SettingError("scale", scale, "is not a finite number", "give one such as 1 or -0.5")
    check_least("n_new", n_new, 1)
    check_seed("seed", seed)


def generate(
    subject: Subject,
    ids: Sequence[int],
    n_new: int,
    interventions: Sequence[Intervention] = (),
    *,
    use_cache: bool = True,
) -> tuple[list[int], float | None]:
    """Continue a prompt greedily with a changed stream.

    Args:
        use_cache: cache keys and values; otherwise the whole text is processed for each token.

    Returns:
        The added tokens, up to an end-of-text token; and −log probability of the prompt's tokens
        from the second on, in nats per token, None if there is no second token.

    Raises:
        ArithmeticError: if a logit isn't finite.
    """
    model: Any = subject.model
    ends = _ending_tokens(model)
    device = input_device(model)
    result, cache = list(ids), None
    given, nats = list(ids), None
    with torch.no_grad(), evaluating(model), intervene(interventions):
        for step in range(n_new):
            mask = torch.ones(1, len(result), dtype=torch.int64, device=device)
            out = model(
                input_ids=torch.tensor([given], device=device),
                attention_mask=mask,
                **with_cache(model, cache),
                use_cache=use_cache,
            )
            if not bool(out.logits.isfinite().all()):
                raise ArithmeticError("a logit is not finite")
            if not step:
                nats = _mean_nats(out.logits[0], given)
            token = int(out.logits[0, -1].argmax())
            result.append(token)
            if token in ends:
                break
            cache = cache_of(out) if use_cache else None
            # Models without a cache read everything again.
            given = [token] if cache is not None else result
    return result[len(ids) :], nats


def _mean_nats(logits: Tensor, ids: Sequence[int]) -> float | None:
    if len(ids) < 2:
        return None
    targets = torch.tensor(ids[1:], device=logits.device)
    return float(functional.cross_entropy(logits[:-1].float(), targets))


def _ending_tokens(model: Any) -> set[int]:
    stops = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = stops if isinstance(stops, (list, tuple)) else [stops]
    return {int(each) for each in listed if each is not None}


def _check_generates(subject: Subject) -> None:
    name = type(subject.model).__name__
    if not subject.architecture.is_causal:
        raise UserError(
            f"{name} is an encoder: it predicts no next token, so it continues no prompt; give a "
            "causal model"
        )
    if not hasattr(subject.model, "generate"):
        raise UserError(
            f"{name} was loaded without a head, so it continues no prompt; load it with its head"
        )


def _check_room(subject: Subject, n_tokens: int, n_new: int) -> None:
    most = longest_sequence(subject.model)
    if most is not None and n_tokens + n_new > most:
        raise SettingError(
            "n_new",
            n_new,
            f"does not fit in the context: the prompt has {n_tokens:,} tokens, and the model "
            f"has a context of {most:,}",
            f"give {most - n_tokens:,} at most" if n_tokens < most else "shorten the prompt",
        )
