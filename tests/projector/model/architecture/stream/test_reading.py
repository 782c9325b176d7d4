"""What attention reads is the stream through the norms that are found, scales frozen."""

from __future__ import annotations

import pytest
import torch

from projector.model.architecture.stream.reading import NormPath, find_norm_paths
from projector.model.capture import Tap, collect
from tests.families import ENCODERS, FAMILIES, subject_of

IDS = [(13 * i + 5) % 300 for i in range(9)]
READ_AS_IT_IS = (*ENCODERS, "olmo2")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_through_the_norms_is_what_is_read(family: str) -> None:
    subject = subject_of(family)
    heads = subject.attentions
    found = find_norm_paths(
        subject.model, subject.architecture, {layer: each.input for layer, each in heads.items()}
    )
    for layer, norm_path in found.items():
        assert isinstance(norm_path, NormPath)
        assert bool(norm_path.norms) == (family not in READ_AS_IT_IS)
        taps: dict[object, Tap] = {"stream": norm_path.stream, "read": norm_path.read}
        taps |= {i: Tap(module, "output") for i, (module, _) in enumerate(norm_path.norms)}
        passed = {
            key: each.reshape(-1, each.shape[-1])
            for key, each in collect(subject.model, taps, subject.inputs(IDS)).items()
        }
        stream, read = passed["stream"], passed["read"]
        path = norm_path.freeze(stream, tuple(passed[i] for i in range(len(norm_path.norms))))
        bias = path.bias(None)
        again = path.apply(stream) + (0 if bias is None else bias)
        assert torch.allclose(again, read, atol=1e-4)
        # Weights on what is read, folded, give of the scaled stream what they give themselves.
        weights = torch.randn(3, 5, read.shape[1], generator=torch.Generator().manual_seed(layer))
        given = read if bias is None else read - bias
        expected = given @ weights.flatten(0, 1).T
        found_too = norm_path.scaled(stream) @ norm_path.fold(weights).flatten(0, 1).T
        assert torch.allclose(found_too, expected, rtol=1e-4, atol=1e-3)


def test_what_more_than_norms_change_is_not_taken_for_the_stream() -> None:
    subject = subject_of("llama")
    elsewhere = Tap(subject.architecture.blocks[0].module, "output")
    found = find_norm_paths(subject.model, subject.architecture, {0: elsewhere})
    assert isinstance(found[0], str)
