"""A model to analyse: its weights, its parts, and how it writes to and reads from its stream."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from projector.corpus.pieces import Pieces
from projector.errors import SettingError, UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.stream.attention import HeadWeights, find_attentions
from projector.model.architecture.stream.patterns import PatternTaps, find_patterns
from projector.model.architecture.stream.reading import find_reads
from projector.model.architecture.stream.readout import Readout, find_readout
from projector.model.architecture.stream.writers import find_stream
from projector.model.context import input_embedding, longest_sequence
from projector.model.loading import LoadedModel, input_device, load_model
from projector.model.prompting import encode

if TYPE_CHECKING:
    from projector.model.architecture.records import Architecture
    from projector.model.architecture.stream.reading import BlockReads
    from projector.model.architecture.stream.records import StreamLayout


class Subject:
    """A loaded model and its parts, each found once, on first access."""

    def __init__(self, loaded: LoadedModel, architecture: Architecture | None = None) -> None:
        self.loaded = loaded
        self.architecture = architecture or find_architecture(loaded.model)

    @classmethod
    def of(cls, model: Subject | LoadedModel | str) -> Subject:
        """Create a subject from a subject, a loaded model, or the name of a model to load with its
        head.
        """
        if isinstance(model, Subject):
            return model
        return cls(load_model(model, with_head=True) if isinstance(model, str) else model)

    @property
    def model(self) -> Any:
        """The model, in evaluation mode."""
        return self.loaded.model

    @cached_property
    def readout(self) -> Readout:
        """The model's final norm and head; see :func:`find_readout` for what it raises."""
        return find_readout(self.model, self.architecture)

    @cached_property
    def layout(self) -> StreamLayout:
        """How it writes to its residual stream; see :func:`find_stream` for what it raises."""
        return find_stream(self.model, self.architecture)

    @cached_property
    def reads(self) -> tuple[BlockReads, ...]:
        """How each block's MLP reads the stream; see :func:`find_reads`."""
        return find_reads(self.model, self.architecture, self.layout)

    def encode(self, text: str, *, as_chat: bool = False) -> list[int]:
        """Token ids of a prompt; see :func:`projector.model.prompting.encode`."""
        return encode(self.loaded, text, is_causal=self.architecture.is_causal, as_chat=as_chat)

    def ids_of(self, prompt: str | Sequence[int], *, as_chat: bool = False) -> list[int]:
        """Token ids of a prompt that is text or token ids.

        Args:
            as_chat: apply the model's chat template to a text, as the user's turn.

        Raises:
            UserError: if there are no ids, more than the model's context, or an unknown id; see
                also :func:`projector.model.prompting.encode`.
            SettingError: on ``chat``, if it is used with ids.
        """
        if isinstance(prompt, str):
            return self.encode(prompt, as_chat=as_chat)
        if as_chat:
            raise SettingError(
                "chat",
                True,
                "has no effect on token ids",
                "give the prompt's text, or leave it out",
            )
        try:
            ids = [index(i) for i in prompt]
        except TypeError as error:
            raise UserError("a token's id is not a whole number: give ids or a text") from error
        most, table = longest_sequence(self.model), input_embedding(self.model)
        if not ids:
            raise UserError("the prompt is empty: give at least one token")
        if most is not None and len(ids) > most:
            raise UserError(
                f"the prompt has {len(ids):,} tokens, more than the model's context of {most:,}: "
                "shorten it"
            )
        n_tokens = len(table.weight) if isinstance(table, nn.Embedding) else max(ids) + 1
        if wrong := [i for i in ids if not 0 <= i < n_tokens]:
            raise UserError(
                f"the prompt has token id {wrong[0]}, but the model's token ids are 0 to "
                f"{n_tokens - 1}"
            )
        return ids

    def inputs(self, ids: list[int]) -> dict[str, torch.Tensor]:
        """The model's inputs for one sequence: ids and mask, (1, T) each, on its device."""
        tensor = torch.tensor([ids], device=input_device(self.loaded.model))
        return {"input_ids": tensor, "attention_mask": torch.ones_like(tensor)}

    @cached_property
    def patterns(self) -> PatternTaps:
        """Where the attention pattern of each block is read."""
        return find_patterns(self.model, self.architecture)

    @cached_property
    def attentions(self) -> dict[int, HeadWeights | str]:
        """The heads of each block, or the reason why they can't be separated."""
        return find_attentions(self.model, self.architecture, taps=self.patterns)

    def pieces(self, ids: list[int] | None = None) -> Pieces:
        """The text of tokens; of the whole vocabulary by default."""
        return self._all_pieces if ids is None else Pieces.of_tokenizer(self.loaded.tokenizer, ids)

    @cached_property
    def _all_pieces(self) -> Pieces:
        return Pieces.of_tokenizer(self.loaded.tokenizer)
