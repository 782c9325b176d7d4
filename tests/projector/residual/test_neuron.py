"""What a neuron reads and writes: weights that were set by hand are found, noise is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from projector.errors import SettingError, UserError
from projector.model.architecture.stream.reading import NormPath
from projector.model.loading import LoadedModel
from projector.residual.circuits.vocabulary import token_embeddings
from projector.residual.circuits.weights import find_circuits
from projector.residual.neuron import neuron_weights
from projector.residual.subject import Subject
from tests.families import (
    CLOSE_PER_BLOCK,
    ENCODERS,
    FAMILIES,
    MIXTURES,
    N_NEURONS,
    N_VOCABULARY,
    STREAMS,
    build,
)

READ, WRITTEN, NEURON, READER = 17, 41, 3, 11


def subject_of(family: str, tokenizer: Any) -> Subject:
    return Subject(LoadedModel(build(family), tokenizer, family, ""))


def set_row(matrix: Any, row: int, values: torch.Tensor) -> None:
    """Set the weights of one output of a matrix."""
    weight = matrix.module.weight.data
    (weight if matrix.input_axis == 1 else weight.T)[row] = values


def weight_of(reading: NormPath) -> torch.Tensor:
    """The weight of the norm before an MLP; 1 where there is none."""
    return torch.ones(()) if not reading.norms else reading.norms[0][1].weight


@pytest.mark.parametrize("family", [*FAMILIES, *STREAMS])
def test_weights_set_by_hand_are_found(family: str, tokenizer: Any) -> None:
    """A neuron reads one token and writes another, and a later neuron reads what it writes."""
    subject = subject_of(family, tokenizer)
    first, last = subject.architecture.blocks
    assert first.mlp is not None
    assert last.mlp is not None
    streams = token_embeddings(subject, range(N_VOCABULARY)).detach()
    reads, addition = subject.reads, subject.layout.blocks[0].mlp
    assert addition is not None
    assert reads[0].mlp is not None
    assert reads[1].mlp is not None
    weight = weight_of(reads[0].mlp)
    set_row(first.mlp.inputs[0], NEURON, streams[READ] / weight)
    is_running = family not in CLOSE_PER_BLOCK
    if is_running:
        wanted = subject.readout.unembedding([WRITTEN])[0].float()
        on_the_way = [subject.readout.form, *(form for _, form in addition.norms)]
        for form in on_the_way:
            wanted = wanted if form is None else wanted / form.weight
        output = first.mlp.output.module.get_parameter("weight").data
        (output if first.mlp.output.input_axis == 1 else output.T)[:, NEURON] = wanted
        for _, form in addition.norms:
            wanted = wanted * form.weight
        set_row(last.mlp.inputs[-1], READER, wanted / weight_of(reads[1].mlp))

    found = neuron_weights(subject, 0, NEURON)
    # The first input of a fused matrix is the gate, or what stands in its half.
    assert found.reads[0].most[0].token == READ
    assert found.reads[0].most[0].value == pytest.approx(1, abs=1e-4)
    assert found.reads[0].n_beyond >= 1
    assert found.reads[0].shuffled_most < 0.95
    for table in found.reads[1:]:
        assert table.n_beyond <= N_VOCABULARY // 20
    assert found.readers is not None
    assert (found.writes is None) == (family in ENCODERS) == (found.writes_reason is not None)
    if not is_running:
        return
    assert found.writes is not None
    assert found.writes.most[0].token == WRITTEN
    assert found.writes.most[0].value > found.writes.shuffled_mean
    strongest = found.readers.strongest[0]
    assert (strongest.layer, strongest.neuron) == (1, READER)
    assert strongest.cosine == pytest.approx(1, abs=1e-4)
    assert found.readers.n_beyond >= 1
    json.dumps(found.as_dict(), allow_nan=False)


def test_in_a_post_norm_model_the_stream_goes_through_the_norms(tokenizer: Any) -> None:
    """What is written passes the norm behind its block, and the next one's before the MLP."""
    subject = subject_of("bert", tokenizer)
    layers = subject.model.bert.encoder.layer
    direction = layers[0].output.dense.weight.detach()[:, NEURON]
    for norm in (layers[0].output.LayerNorm, layers[1].attention.output.LayerNorm):
        direction = (direction - direction.mean()) * norm.weight.detach()
    layers[1].intermediate.dense.weight.data[READER] = direction
    found = neuron_weights(subject, 0, NEURON).readers
    assert found is not None
    assert found.strongest[0].neuron == READER
    assert found.strongest[0].cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "olmo2"])
def test_a_head_whose_values_read_it_is_found(family: str, tokenizer: Any) -> None:
    subject = subject_of(family, tokenizer)
    block = subject.architecture.blocks[0]
    assert block.mlp is not None
    values = find_circuits(subject, [1]).layer(1).ov.right
    # What the second head's values read most, and the norm behind the MLP makes of it.
    direction = torch.linalg.svd(values[1]).Vh[0]
    addition = subject.layout.blocks[0].mlp
    assert addition is not None
    for _, form in addition.norms:
        direction = direction / form.weight
    output = block.mlp.output.module.get_parameter("weight").data
    (output if block.mlp.output.input_axis == 1 else output.T)[:, NEURON] = direction
    # Of a subject whose heads were not looked for yet: gradients tell which are which.
    again = Subject(subject.loaded, subject.architecture)
    found = neuron_weights(again, 0, NEURON, heads=True).heads
    assert found is not None
    strongest = found.strongest[0]
    assert (strongest.layer, strongest.part) == (1, "value")
    sharing = [h for h in range(4) if torch.equal(values[h], values[1])]
    assert strongest.head in sharing
    expected = torch.linalg.svdvals(values[1])[0] / values[1].norm() * 24**0.5
    assert strongest.strength == pytest.approx(float(expected), rel=1e-3)
    assert found.n_parts == 3 * 4
    assert neuron_weights(subject, 0, NEURON).heads is None
    assert neuron_weights(subject, 1, NEURON, heads=True).heads is None


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_written_is_what_a_logit_gains(family: str, tokenizer: Any) -> None:
    """The logits' differences grow as the values say when the neuron's activation does."""
    subject = subject_of(family, tokenizer)
    found = neuron_weights(subject, 1, NEURON, n_top=N_VOCABULARY).writes
    assert found is not None
    values = torch.zeros(N_VOCABULARY)
    for each in found.most:
        values[each.token] = each.value
    torch.manual_seed(0)
    stream = torch.randn(24)
    addition = subject.layout.blocks[1].mlp
    assert addition is not None
    written = addition.weight()[:, NEURON]
    readout = subject.readout
    assert readout.norm is not None
    assert readout.form is not None
    with torch.no_grad():
        scale = readout.form.scale(stream, readout.norm(stream))
        raised = readout.form.apply(stream + 2 * written, scale) + readout.form.bias
        usual = readout.form.apply(stream, scale) + readout.form.bias
        gained = (raised - usual) @ readout.unembedding().float().T
    gained = gained - gained.mean()
    assert torch.allclose(gained, 2 * float(scale) * values, atol=1e-4)


def test_gate_and_up_are_named_by_which_the_activation_acts_on(tokenizer: Any) -> None:
    for family, names in (("llama", ["gate", "up"]), ("phi3", ["gate", "up"]), ("opt", ["input"])):
        found = neuron_weights(subject_of(family, tokenizer), 0, 0)
        assert [table.part for table in found.reads] == names
        assert found.gated == (len(names) == 2)


def test_equal_seeds_give_equal_controls(tokenizer: Any) -> None:
    subject = subject_of("qwen2", tokenizer)
    assert neuron_weights(subject, 0, 1) == neuron_weights(subject, 0, 1)
    other = neuron_weights(subject, 0, 1, seed=1)
    assert other.reads[0].shuffled_most != neuron_weights(subject, 0, 1).reads[0].shuffled_most


def test_what_is_not_there_is_refused(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    for layer, neuron, setting, value in (
        (2, 0, "layer", 2),
        (-1, 0, "layer", -1),
        (0, N_NEURONS, "neuron", N_NEURONS),
        (0, -1, "neuron", -1),
    ):
        with pytest.raises(SettingError) as error:
            neuron_weights(subject, layer, neuron)
        assert (error.value.setting, error.value.value) == (setting, value)
    with pytest.raises(SettingError) as error:
        neuron_weights(subject, 0, 0, n_top=0)
    assert error.value.setting == "n_top"
    assert neuron_weights(subject, 1, 0).readers is None
    for family in MIXTURES:
        with pytest.raises(UserError) as refused:
            neuron_weights(subject_of(family, tokenizer), 0, 0)
        assert refused.value.setting == "layer"
        assert "experts" in str(refused.value)
