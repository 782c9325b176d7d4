"""A prompt's tokens, the activation of every neuron on each, and the model's next tokens."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from dashboard.guest import Guest
from projector.corpus.pieces import Pieces, readable
from projector.errors import UserError
from projector.memory import size_text
from projector.model import prompting
from projector.model.caching import cache_of, with_cache
from projector.model.capture import capture, evaluating
from projector.storage.bounded import BoundedFolder
from projector.storage.places import disk_errors

_ID = re.compile(r"[0-9a-f]{16}")
# Most bytes of one map over all tokens: three are sent at once, and Streamlit limits messages.
_MOST_VALUES = 40_000_000
# Most logits of all tokens for which next tokens are computed: 1 GiB in float32.
_MOST_LOGITS = 2**28
_N_NEXT, _ROWS_AT_ONCE = 5, 64


@dataclass(frozen=True)
class Prompt:
    """The typed text, and the number of tokens that the model adds.

    Attributes:
        text: the typed text.
        n_new: number of tokens to generate.
        as_chat: whether to send it through the model's chat template, as the user's turn.
    """

    text: str
    n_new: int = 0
    as_chat: bool = False

    @property
    def id(self) -> str:
        """Equal for equal prompts."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Piece:
    """One token for display: ``text`` in context, with spaces, and visible signs for blanks."""

    id: int
    text: str
    is_made: bool
    is_special: bool


@dataclass(frozen=True)
class Tokens:
    """A prompt as tokens.

    Attributes:
        prompt: the prompt that was sent.
        pieces: T tokens, of the prompt and those that the model added.
        n_prompt: number of tokens of the prompt.
    """

    prompt: Prompt
    pieces: tuple[Piece, ...]
    n_prompt: int

    @property
    def ids(self) -> list[int]:
        """(T,) ids of all tokens."""
        return [piece.id for piece in self.pieces]


@dataclass(frozen=True)
class Next:
    """A token that may come next, and the model's probability of it."""

    text: str
    probability: float


@dataclass(frozen=True, eq=False)
class Run:
    """A prompt run through a model.

    Attributes:
        pieces: T tokens, of the prompt and those that the model added.
        activations: (layer, site) → (T, N) float16.
        n_prompt: number of tokens of the prompt.
        text: the whole text, decoded.
        nexts: the next tokens that the model expects after each of the T tokens, the most probable
            first; empty for an encoder, and for a text too long for the logits of all tokens.
    """

    prompt: Prompt
    pieces: tuple[Piece, ...]
    activations: dict[tuple[int, str], NDArray[np.float16]]
    n_prompt: int
    text: str
    nexts: tuple[tuple[Next, ...], ...] = ()


def has_chat(guest: Guest) -> bool:
    """Whether the model's tokenizer has a chat template."""
    return prompting.has_chat(guest.loaded.tokenizer)


def as_it_can(guest: Guest, prompt: Prompt) -> Prompt:
    """The prompt as plain text if the model has no chat template."""
    if prompt.as_chat and not has_chat(guest):
        return Prompt(prompt.text, prompt.n_new)
    return prompt


def can_generate(guest: Guest) -> bool:
    """Whether the model can continue a text."""
    return guest.architecture.is_causal and hasattr(guest.loaded.model, "generate")


def encode(guest: Guest, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, without characters that can't be typed.

    Raises:
        UserError: see :func:`projector.model.prompting.clean` and
            :func:`projector.model.prompting.encode`.
    """
    return prompting.encode(
        guest.loaded,
        prompting.clean(prompt.text),
        is_causal=guest.architecture.is_causal,
        as_chat=prompt.as_chat,
        n_new=prompt.n_new if can_generate(guest) else 0,
    )


def read_prompt(
    guest: Guest, prompt: Prompt, *, advance: Callable[[int], None] = lambda n: None
) -> Tokens:
    """A prompt's tokens, and those that the model adds greedily.

    Args:
        advance: called for each added token; an exception in it stops the work.

    Raises:
        UserError: see :func:`encode`.
    """
    ids = encode(guest, prompt)
    n_prompt = len(ids)
    if prompt.n_new and can_generate(guest):
        ids = _generate(guest, ids, prompt.n_new, advance)
    tokenizer = guest.loaded.tokenizer
    special = set(tokenizer.all_special_ids)
    texts = Pieces.of_tokenizer(tokenizer, ids).texts(ids)
    pieces = tuple(
        Piece(i, readable(text, running=True), k >= n_prompt, i in special)
        for k, (i, text) in enumerate(zip(ids, texts, strict=True))
    )
    return Tokens(prompt, pieces, n_prompt)


def run_prompt(
    guest: Guest,
    prompt: Prompt,
    maps: Sequence[tuple[int, str]],
    *,
    tokens: Tokens | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Run:
    """Generate, then run all tokens once more, and keep the activations of ``maps``.

    Generation is greedy, so a prompt gives the same text each time.

    Args:
        tokens: the result of :func:`read_prompt`, if known.
        advance: called for each added token; an exception in it stops the work.

    Raises:
        UserError: see :func:`encode`; or if the model gives no finite activations.
    """
    tokens = tokens or read_prompt(guest, prompt, advance=advance)
    ids = tokens.ids
    _check_size(guest, len(ids), maps)
    tensor = torch.tensor([ids], device=next(guest.loaded.model.parameters()).device)
    found: dict[tuple[int, str], NDArray[np.float16]] = {}

    def keep(key: tuple[int, str], activation: Tensor) -> None:
        rows = activation.detach().reshape(-1, activation.shape[-1]).float()
        if not bool(rows.isfinite().all()):
            raise UserError(
                f"layer {key[0]} gives activations that are not finite on this prompt: start with "
                "--dtype float32"
            )
        # Half precision holds up to 65,504.
        found[key] = rows.clamp(-6e4, 6e4).half().cpu().numpy()

    blocks = guest.architecture.blocks
    taps = {(layer, site): blocks[layer].taps[site] for layer, site in maps}
    # A model runs faster without its head: logits are computed only if they predict next tokens.
    model: Any = guest.loaded.model
    n_vocabulary = int(getattr(model.config.get_text_config(), "vocab_size", 0) or 0)
    has_nexts = can_generate(guest) and len(ids) * n_vocabulary <= _MOST_LOGITS
    runner = model if has_nexts else getattr(model, "base_model", model)
    with torch.no_grad(), evaluating(model), capture(taps, keep):
        out = runner(input_ids=tensor, attention_mask=torch.ones_like(tensor))
    tokenizer = guest.loaded.tokenizer
    nexts = _nexts(out.logits[0], tokenizer) if has_nexts else ()
    return Run(prompt, tokens.pieces, found, tokens.n_prompt, tokenizer.decode(ids), nexts)


def _nexts(logits: Tensor, tokenizer: Any) -> tuple[tuple[Next, ...], ...]:
    """The most probable next tokens of (T, V) logits."""
    # Rows beyond the tokenizer's tokens pad the matrix: they count, but have no text.
    n_named = min(logits.shape[1], len(tokenizer))
    n_told = min(_N_NEXT, n_named)
    found: list[list[tuple[int, float]]] = []
    for rows in logits.split(_ROWS_AT_ONCE):
        values, ids = rows[:, :n_named].float().topk(n_told, dim=1)
        shares = (values - rows.float().logsumexp(1, keepdim=True)).exp()
        found += [
            list(zip(*row, strict=True)) for row in zip(ids.tolist(), shares.tolist(), strict=True)
        ]
    pieces = Pieces.of_tokenizer(tokenizer, {i for row in found for i, _ in row})
    return tuple(tuple(Next(readable(pieces.text(i)), share) for i, share in row) for row in found)


def align(a: Sequence[int], b: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Align two prompts in rows: (R,) places in each, −1 if it has no token in that row.

    Tokens that both have in the same order share rows. Where the prompts differ, tokens are paired
    from the first on, and the rest of the longer part has no partner.
    """
    rows: list[tuple[int, int]] = []
    matcher = SequenceMatcher(None, list(a), list(b), autojunk=False)
    for _, a_first, a_end, b_first, b_end in matcher.get_opcodes():
        for k in range(max(a_end - a_first, b_end - b_first)):
            i, j = a_first + k, b_first + k
            rows.append((i if i < a_end else -1, j if j < b_end else -1))
    places = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1]


def _check_size(guest: Guest, n_tokens: int, maps: Sequence[tuple[int, str]]) -> None:
    """Raise a UserError if the activations of that many tokens are too many to keep or to send."""
    widths = [guest.architecture.blocks[layer].widths[site] for layer, site in maps]
    needed, free = 2 * n_tokens * sum(widths), psutil.virtual_memory().available
    if 2 * needed > free:
        raise UserError(
            f"the activations of {n_tokens:,} tokens take {size_text(needed)}, and only "
            f"{size_text(free)} of memory is free: shorten the prompt"
        )
    widest = max(widths, default=1)
    if n_tokens * widest > _MOST_VALUES:
        raise UserError(
            f"{n_tokens:,} tokens of {widest:,} neurons are more than a page can show: "
            f"shorten the prompt to {_MOST_VALUES // widest:,} tokens"
        )


def continue_prompt(
    guest: Guest, prompt: Prompt, advance: Callable[[int], None] = lambda n: None
) -> str:
    """Continue a prompt greedily, and return the added text.

    Args:
        advance: called for each added token; an exception in it stops the work.

    Raises:
        UserError: see :func:`encode`.
    """
    prompt = as_it_can(guest, prompt)
    ids = encode(guest, prompt)
    made = _generate(guest, ids, prompt.n_new, advance)
    return str(guest.loaded.tokenizer.decode(made[len(ids) :]))


def _generate(
    guest: Guest, ids: list[int], n_new: int, advance: Callable[[int], None]
) -> list[int]:
    """Greedy, one token at a time."""
    model: Any = guest.loaded.model
    stops = getattr(model.generation_config, "eos_token_id", None)
    ends = set(stops) if isinstance(stops, (list, tuple)) else {stops}
    device = next(model.parameters()).device
    given, cache = torch.tensor([ids], device=device), None
    result = list(ids)
    with torch.no_grad(), evaluating(model):
        for _ in range(n_new):
            mask = torch.ones(1, len(result), dtype=torch.int64, device=device)
            out = model(
                input_ids=given,
                attention_mask=mask,
                use_cache=True,
                **with_cache(model, cache),
            )
            cache = cache_of(out)
            token = int(out.logits[0, -1].argmax())
            result.append(token)
            advance(1)
            if token in ends:
                break
            # Models without a cache read everything again.
            given = torch.tensor([[token]] if cache is not None else [result], device=device)
    return result


# A link holds a prompt's id; the text is in this folder.
STORED_PROMPTS = f"prompts/{'[0-9a-f]' * 16}.json"


def store(prompt: Prompt, folder: BoundedFolder) -> str:
    """Keep a prompt so that a link can name it, and return its id.

    Raises:
        UserError: if the folder can't be written to.
    """
    name = _file_of(prompt.id)
    with disk_errors(folder.path):
        if folder.find(name) is None:
            with folder.writing(name) as path:
                path.write_text(json.dumps(asdict(prompt)), encoding="utf-8")
    return prompt.id


def recall(prompt_id: str, folder: BoundedFolder) -> Prompt:
    """The prompt with an id.

    Raises:
        UserError: if there is none.
    """
    if not _ID.fullmatch(prompt_id):
        raise UserError(f"{prompt_id[:40]!r} isn't the id of a prompt: type a prompt")
    try:
        path = folder.find(_file_of(prompt_id))
        if path is None:
            raise FileNotFoundError
        values = json.loads(path.read_text(encoding="utf-8"))
        return Prompt(str(values["text"]), int(values["n_new"]), bool(values["as_chat"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the prompt {prompt_id} of this link is not on this machine: type it again"
        ) from error


def _file_of(prompt_id: str) -> str:
    return f"prompts/{prompt_id}.json"
