"""The full report about a model's heads: the Python interface of ``projector heads``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from projector.corpus.pieces import Pieces
from projector.errors import SettingError, UserError, check_text, named
from projector.progress import Progress, Silent
from projector.residual.circuits.composition import Compositions, compose_heads
from projector.residual.circuits.goals import check_against
from projector.residual.circuits.pairs import TopPairs
from projector.residual.circuits.tokens import HeadPairs, find_pairs
from projector.residual.circuits.virtual import VirtualHeads, find_virtual_heads
from projector.residual.circuits.weights import Circuits
from projector.residual.heads.kinds import KINDS, Heads
from projector.residual.heads.prompt import KeptPatterns, PromptPatterns, check_heads, read_patterns
from projector.residual.heads.scores import reason_of, score_with_circuits
from projector.residual.settings import check_numbers, parse_heads
from projector.residual.subject import Subject
from projector.residual.tokens import find_position, find_token

# Heads of each kind that are shown where none are named.
_N_OF_EACH_KIND = 2
_N_COMPOSITIONS = 20


@dataclass(frozen=True, eq=False)
class HeadsReport:
    """A model's heads: scores, circuits of some heads, and their attention on a prompt.

    Attributes:
        model: the model's name.
        scores: scores of every head, with kinds and random heads.
        shown: the heads to show in detail, (layer, head) each.
        compositions: how strongly each head reads each earlier head, from the weights; None if it
            can't be computed.
        pairs: pairs of tokens that the shown heads connect most strongly, from the weights.
        texts: texts of the tokens in ``pairs`` and ``virtual``.
        prompt: attention of the shown heads on the prompt; None without a prompt.
        virtual: the strongest paths through two heads to a logit of the prompt; None without a
            prompt.
        reasons: reasons why parts are missing.
    """

    model: str
    scores: Heads
    shown: tuple[tuple[int, int], ...]
    compositions: Compositions | None
    pairs: tuple[HeadPairs, ...]
    texts: Pieces | None
    prompt: PromptPatterns | None
    virtual: VirtualHeads | None
    reasons: tuple[str, ...]

    def text(self, token: int) -> str:
        """The text of a token in this report."""
        known = self.texts is not None and token in self.texts
        return self.texts.text(token) if known and self.texts is not None else f"#{token}"

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values: the scores and all other results."""
        composed = [] if self.compositions is None else self.compositions.strongest(_N_COMPOSITIONS)
        return {
            "model": self.model,
            **self.scores.as_dict(),
            "reasons": list(self.reasons),
            "shown": [list(head) for head in self.shown],
            "composition": [asdict(each) for each in composed],
            "pairs": [
                {
                    "layer": each.layer,
                    "head": each.head,
                    "n_tokens": each.n_tokens,
                    "n_vocabulary": each.n_vocabulary,
                    "left_out": list(each.left_out),
                    "ov": self._pairs_dict(each.ov),
                    "qk": self._pairs_dict(each.qk),
                    "ov_through_mlps": self._pairs_dict(each.mlp_ov),
                    "qk_through_mlps": self._pairs_dict(each.mlp_qk),
                }
                for each in self.pairs
            ],
            "prompt": None if self.prompt is None else self.prompt.as_dict(),
            "virtual_heads": None if self.virtual is None else self.virtual.as_dict(),
        }

    def _pairs_dict(self, found: TopPairs | None) -> dict[str, Any] | None:
        if found is None:
            return None
        rows = [
            {
                "from": source,
                "from_text": self.text(source),
                "to": targets,
                "to_texts": [self.text(each) for each in targets],
                "scores": scores,
            }
            for source, targets, scores in zip(
                found.from_ids.tolist(), found.to_ids.tolist(), found.scores.tolist(), strict=True
            )
        ]
        return {"rows": rows, "spread": found.spread, "control": found.control}


def heads(
    model: Subject | str,
    prompt: str | Sequence[int] | None = None,
    *,
    show: str | Sequence[tuple[int, int]] | None = None,
    n_sequences: int = 4,
    length: int = 50,
    n_random: int = 100,
    n_pair_tokens: int = 4096,
    seed: int = 0,
    token: int | str | None = None,
    against: int | str | None = None,
    position: int = -1,
    progress: Progress | None = None,
) -> HeadsReport:
    """Analyse a model's attention heads: their kinds, circuits, and attention on a prompt.

    Args:
        model: a subject with its head, or the name of a model to load.
        prompt: text, or token ids of the model; None for only weights and scores.
        show: heads to show in detail, as ``3.2,4.3`` (layer.head) or pairs; by default the
            strongest two of each kind.
        n_sequences, length, n_random, seed: as for
            :func:`~projector.residual.heads.scores.score_heads`.
        n_pair_tokens: number of tokens to try for pairs, from the start of the vocabulary.
        token, against, position: the logit for virtual heads, with tokens as for
            :func:`~projector.residual.tokens.find_token`; by default the model's top next token at
            the last position.

    Raises:
        SettingError: on an invalid argument.
        UserError: if the model's heads can't be analysed, or a head in ``show`` doesn't exist.
    """
    check_numbers(
        n_sequences=n_sequences,
        length=length,
        n_random=n_random,
        n_pair_tokens=n_pair_tokens,
        seed=seed,
    )
    check_text("prompt", prompt if isinstance(prompt, str) else None)
    _check_goal(prompt, token=token, against=against)
    chosen = parse_heads(show) if isinstance(show, str) else show
    subject, progress = Subject.of(model), progress or Silent()
    if chosen is not None:
        check_heads(subject, chosen)
    ids = None if prompt is None else subject.ids_of(prompt)
    wanted = None if token is None else find_token(subject, token)
    other = None if against is None else find_token(subject, against, setting="against")
    check_against(wanted, other)
    position = position if ids is None else find_position(len(ids), position)
    scores, circuits = score_with_circuits(
        subject,
        n_sequences=n_sequences,
        length=length,
        n_random=n_random,
        seed=seed,
        progress=progress,
    )
    shown = tuple(strongest_heads(scores) if chosen is None else dict.fromkeys(chosen))
    reasons = list(scores.reasons)
    progress.begin("Finding circuits", None, "")
    compositions, pairs = _circuits(subject, circuits, shown, (n_pair_tokens, seed), reasons)
    patterns, virtual = None, None
    if ids is not None:
        progress.begin("Reading the prompt", None, "")
        goal = (wanted, other, position)
        patterns, virtual = _on_prompt(subject, ids, shown, goal, circuits, reasons)
    progress.end()
    return HeadsReport(
        model=subject.loaded.identifier,
        scores=scores,
        shown=shown,
        compositions=compositions,
        pairs=pairs,
        texts=_texts(subject, pairs, virtual),
        prompt=patterns,
        virtual=virtual,
        reasons=tuple(dict.fromkeys(reasons)),
    )


def _check_goal(prompt: str | Sequence[int] | None, **tokens: int | str | None) -> None:
    """Raise a SettingError if a logit is named, but no prompt to read it on."""
    for name, value in tokens.items():
        if prompt is None and value is not None:
            raise SettingError(
                name,
                value,
                f"has no effect without {named('prompt')}",
                f"give {named('prompt')} too, or leave it out",
            )


def strongest_heads(scores: Heads, n_each: int = _N_OF_EACH_KIND) -> list[tuple[int, int]]:
    """The strongest heads of each kind, only of kinds that the model has."""
    found = [head for kind in KINDS for head in scores.kinds[kind.name][:n_each]]
    return sorted(dict.fromkeys(found))


def _circuits(
    subject: Subject,
    circuits: Circuits | None,
    shown: Sequence[tuple[int, int]],
    settings: tuple[int, int],
    reasons: list[str],
) -> tuple[Compositions | None, tuple[HeadPairs, ...]]:
    """What weights alone tell; what can't be computed is missing, with a reason."""
    if circuits is None:
        return None, ()
    n_tokens, seed = settings
    reasons += circuits.reasons.values()
    compositions: Compositions | None = None
    pairs: tuple[HeadPairs, ...] = ()
    # Scores that took minutes are not lost, whatever fails here.
    try:
        compositions = _compose(circuits, seed)
    except (UserError, RuntimeError) as error:
        reasons.append(f"no composition of heads: {reason_of(error)}")
    try:
        pairs = tuple(find_pairs(subject, circuits, shown, most_tokens=n_tokens))
    except (UserError, RuntimeError) as error:
        reasons.append(f"no pairs of tokens: {reason_of(error)}")
    return compositions, pairs


def _on_prompt(
    subject: Subject,
    ids: Sequence[int],
    shown: Sequence[tuple[int, int]],
    goal: tuple[int | None, int | None, int],
    circuits: Circuits | None,
    reasons: list[str],
) -> tuple[PromptPatterns, VirtualHeads | None]:
    """What heads attend to on a prompt, and paths through two heads."""
    kept = KeptPatterns(shown)
    # Patterns of the whole prompt pass on the way to a logit at its last token.
    also = kept.keep if goal[2] == len(ids) - 1 else None
    virtual = _virtual(subject, ids, goal, circuits, reasons, also)
    return read_patterns(subject, ids, shown, kept), virtual


def _virtual(
    subject: Subject,
    ids: Sequence[int],
    goal: tuple[int | None, int | None, int],
    circuits: Circuits | None,
    reasons: list[str],
    also: Callable[[int, Tensor], None] | None,
) -> VirtualHeads | None:
    """Paths to the logit of a token, against another, at a position; None with a reason."""
    if circuits is None:
        return None
    token, against, position = goal
    try:
        return find_virtual_heads(
            subject,
            ids,
            token=token,
            against=against,
            position=position,
            circuits=circuits,
            also=also,
        )
    except SettingError:
        raise
    except (UserError, RuntimeError) as error:
        reasons.append(f"no paths through two heads: {reason_of(error)}")
        return None


def _compose(circuits: Circuits, seed: int) -> Compositions | None:
    layers = circuits.layers
    if len(layers) < 2:
        return None
    return compose_heads(
        [each.qk for each in layers],
        [each.ov for each in layers],
        layers=[each.layer for each in layers],
        seed=seed,
    )


def _texts(
    subject: Subject, pairs: Sequence[HeadPairs], virtual: VirtualHeads | None
) -> Pieces | None:
    if subject.loaded.tokenizer is None:
        return None
    named = {
        int(token)
        for each in pairs
        for found in (each.ov, each.qk, each.mlp_ov, each.mlp_qk)
        if found is not None
        for token in (*found.from_ids.flatten().tolist(), *found.to_ids.flatten().tolist())
    }
    if virtual is not None:
        goal = virtual.inputs.goal
        named |= {goal.token} if goal.against is None else {goal.token, goal.against}
    return subject.pieces(sorted(named))
