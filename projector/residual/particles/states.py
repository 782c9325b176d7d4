"""Hidden states of prompts and of a corpus in every frame, from the stream without the final
norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projector.corpus.tokens import read_corpus
from projector.errors import UserError
from projector.model.capture import Tap, capture, evaluating, token_rows
from projector.model.context import choose_sequence_length
from projector.model.loading import input_device
from projector.progress import Progress, Silent
from projector.projection.provenance import dtype_name
from projector.residual.outliers import Outlier, describe_outliers
from projector.residual.particles.records import Cloud, Frame, OutlierParticle, Owner, PromptTokens
from projector.residual.subject import Subject

__all__ = [
    "chosen_frames",
    "collect_states",
    "corpus_rows",
    "find_outlying",
    "read_prompt",
    "token_cloud",
]

# Of one batch of a corpus, over all frames: 128 MB of float32.
_NUMBERS_AT_ONCE = 2**25
# Two texts that begin and end otherwise than each other, to tell what is put around any text.
_PROBES = ("0 x", "Z y")


def frames_of(n_layers: int) -> tuple[Frame, ...]:
    """Every frame of a model: the embedding, then after each layer; n_layers + 1 frames."""
    return (Frame.of(None), *(Frame.of(layer) for layer in range(n_layers)))


def chosen_frames(subject: Subject, layers: Sequence[int] | None) -> list[int]:
    """Indices in :func:`frames_of` of the shown frames: the embedding, and after the chosen layers.

    Raises:
        UserError: on ``layers``, if the model lacks one.
    """
    return [0, *(layer + 1 for layer in subject.architecture.choose_layers(layers))]


def read_prompt(subject: Subject, prompt: str | Sequence[int], *, chat: bool) -> PromptTokens:
    """Read a prompt's tokens, and which of them were added by the tokenizer or the chat template.

    Raises:
        UserError: as for :meth:`Subject.ids_of`.
    """
    ids = subject.ids_of(prompt, as_chat=chat)
    pieces = tuple(subject.pieces(ids).texts(ids))
    made = [False] * len(ids)
    if isinstance(prompt, str):
        before, after = len(ids), len(ids)
        for probe in _PROBES:
            other = subject.encode(probe, as_chat=chat)
            before = min(before, _n_alike(ids, other))
            after = min(after, _n_alike(ids[::-1], other[::-1]))
        for i in (*range(before), *range(max(before, len(ids) - after), len(ids))):
            made[i] = True
    text = prompt if isinstance(prompt, str) else None
    return PromptTokens(text, tuple(ids), pieces, tuple(made))


def _n_alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(map(len, (a, b)))
    )


@torch.no_grad()
def collect_states(subject: Subject, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Collect the hidden states of some prompts, run as one batch, padded on the right.

    Args:
        prompts: token ids, T_i of each.

    Returns:
        For each prompt, (F, T_i, H) float32 on the CPU: before layer 0 (``resid_pre``), then after
        each layer (``resid_post``); F = number of layers + 1.

    Raises:
        UserError: if the model's stream can't be read there, or a state isn't finite.
    """
    lengths = [len(ids) for ids in prompts]
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, each in enumerate(prompts):
        ids[row, : lengths[row]] = torch.tensor(list(each))
        mask[row, : lengths[row]] = 1
    frames = _run(subject, ids, mask)
    found = [frames[:, row, :length].contiguous() for row, length in enumerate(lengths)]
    for states in found:
        _check_finite(subject, states)
    return found


def _run(subject: Subject, ids: Tensor, mask: Tensor) -> Tensor:
    """(F, B, T, H) float32 on the CPU, of a batch (B, T)."""
    taps = _taps(subject)
    kept: dict[int, Tensor] = {}

    def keep(frame: int, tensor: Tensor) -> None:
        kept[frame] = token_rows(tensor, ids.shape).float().cpu().clone()

    device = input_device(subject.model)
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    with evaluating(subject.model), capture(taps, keep, then_stop=True):
        subject.model(**inputs)
    return torch.stack([kept[frame] for frame in taps]).reshape(len(taps), *ids.shape, -1)


def _taps(subject: Subject) -> dict[int, Tap]:
    blocks = subject.architecture.blocks
    places = [(0, "resid_pre"), *((layer, "resid_post") for layer in range(len(blocks)))]
    for layer, stream in places:
        if stream not in blocks[layer].taps:
            reason = blocks[layer].missing[stream]
            raise UserError(f"the stream of layer {layer} can't be read: {reason}")
    return {i: blocks[layer].taps[stream] for i, (layer, stream) in enumerate(places)}


def _check_finite(subject: Subject, states: Tensor) -> None:
    is_finite = states.isfinite().all(dim=-1)
    if bool(is_finite.all()):
        return
    frame, token = (int(i) for i in (~is_finite).nonzero()[0])
    dtype = dtype_name(subject.model)
    raise UserError(
        f"the hidden state of token {token} at {Frame.of(frame - 1 if frame else None).name} is "
        f"not finite in {dtype}: load the model in float32",
        setting="dtype",
        value=dtype,
    )


def find_outlying(
    prompts: Sequence[PromptTokens], states: Sequence[Tensor], frames: Sequence[Frame]
) -> tuple[list[Tensor], tuple[OutlierParticle, ...]]:
    """Find tokens with a norm many times the median of all the prompts' tokens in some frame.

    Args:
        states: (F, T_i, H) for each prompt.

    Returns:
        (T_i,) bool for each prompt, and the facts about those tokens.
    """
    norms = torch.cat([each.norm(dim=-1) for each in states], dim=1)
    found: list[Outlier] = list(describe_outliers(norms))
    masks = [torch.zeros(each.shape[1], dtype=torch.bool) for each in states]
    told = []
    for each in found:
        prompt, token = 0, each.position
        if token >= len(masks[0]):
            prompt, token = 1, token - len(masks[0])
        masks[prompt][token] = True
        text = prompts[prompt].pieces[token]
        told.append(
            OutlierParticle(prompt, token, text, frames[each.reading].name, each.times_usual)
        )
    return masks, tuple(told)


def token_cloud(
    states: Sequence[Tensor], frames: Sequence[Frame], outlying: Sequence[Tensor]
) -> Cloud:
    """Create one particle per token: those of the first prompt, then those of the second.

    Args:
        states: (F, T_i, H) float32 for each prompt.
        outlying: (T_i,) bool for each prompt.
    """
    owners = tuple(
        Owner(prompt, token) for prompt, each in enumerate(states) for token in range(each.shape[1])
    )
    return Cloud(
        frames=tuple(frames),
        owners=owners,
        vectors=torch.cat(list(states), dim=1),
        born=torch.zeros(len(owners), dtype=torch.int64),
        outliers=torch.cat(list(outlying)),
    )


@torch.no_grad()
def corpus_rows(
    subject: Subject,
    source: str,
    *,
    max_tokens: int,
    layers: Sequence[int],
    most_rows: int,
    seed: int = 0,
    keep_outliers: bool = False,
    progress: Progress | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """Read hidden states of a corpus in the shown frames, for fitting a map.

    Args:
        source: see :func:`projector.corpus.sources.read_documents`.
        layers: indices of frames, from :func:`chosen_frames`.
        most_rows: largest number of rows; more rows are sampled with ``seed``, evenly over frames.
        keep_outliers: whether to include tokens with an outlying norm.

    Returns:
        (m, H) float32, and notes about the corpus.

    Raises:
        UserError: if the corpus can't be read, or no token is left.
    """
    progress = progress or Silent()
    tokenizer = subject.loaded.tokenizer
    progress.begin("Reading the corpus", None, "documents")
    corpus = read_corpus(
        source,
        tokenizer,
        sequence_length=choose_sequence_length(subject.model, tokenizer, None),
        max_tokens=max_tokens,
        advance=progress.advance,
    )
    longest = int((corpus.starts[1:] - corpus.starts[:-1]).max())
    n_frames = len(subject.architecture.blocks) + 1
    per_token = n_frames * subject.architecture.n_hidden
    share = min(1.0, most_rows / (corpus.n_tokens * len(layers)))
    generator = torch.Generator().manual_seed(seed)
    rows: list[Tensor] = []
    progress.begin("Running the model", corpus.n_sequences, "sequences")
    for batch in corpus.batches(max(1, _NUMBERS_AT_ONCE // (per_token * longest))):
        states = _run(subject, batch.input_ids, batch.attention_mask)
        for states_of, mask, keep in zip(
            states.unbind(1), batch.attention_mask.bool(), batch.keep, strict=True
        ):
            counts = keep.clone()
            if not keep_outliers:
                real = states_of[:, mask]
                for each in describe_outliers(real.norm(dim=-1)):
                    counts[int(mask.nonzero()[each.position, 0])] = False
            chosen = states_of[list(layers)][:, counts]
            drawn = torch.rand(chosen.shape[:2], generator=generator) < share
            rows.append(chosen[drawn])
        progress.advance(len(batch.keep))
    progress.end()
    found = torch.cat(rows)
    if not len(found):
        raise UserError(
            f"corpus '{corpus.source}' has no hidden state left to fit a map on: give more text",
            setting="corpus",
            value=corpus.source,
        )
    drawn_of = "drawn at random from those" if share < 1 else "all"
    without = "" if keep_outliers else " without outlier norms"
    note = f"The map is fitted on {len(found):,} hidden states of {corpus.source}, {drawn_of}"
    of = f"{corpus.n_tokens:,} tokens in {len(layers)} {'frame' if len(layers) == 1 else 'frames'}"
    return found, (f"{note}{without} of {of}.",)
