"""The logit lens beside what the model itself says, and beside a reference worked out plainly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.model.capture import collect
from projector.model.loading import LoadedModel
from projector.residual.lens import Lens, Reading, run_lens
from projector.residual.logits.highest import find_highest
from projector.residual.readings import measuring
from projector.residual.readings.words import outlier_words
from projector.residual.subject import Subject
from tests.families import ENCODERS, FAMILIES, MIXTURES, PARALLEL, STREAMS, build

N_TOKENS = 9


def _subject(model: Any, tokenizer: Any) -> Subject:
    return Subject(LoadedModel(model, tokenizer, "tiny", "0" * 64))


def _ids(n: int = N_TOKENS) -> list[int]:
    return torch.randint(2, 320, (n,)).tolist()


def _reference(subject: Subject, ids: list[int], reading: Reading) -> Tensor:
    """Log probabilities (T, V) of one reading, float64."""
    tap = subject.architecture.blocks[reading.layer].taps[reading.stream]
    stream = collect(subject.model, {0: tap}, subject.inputs(ids))[0]
    with torch.no_grad():
        logits = subject.readout.logits(stream).reshape(len(ids), -1)
    return logits.double().log_softmax(-1)


def _check(subject: Subject, found: Lens, ids: list[int]) -> None:
    with torch.no_grad():
        logits = subject.model(**subject.inputs(ids)).logits[0].double()
    final = logits.log_softmax(-1)
    target = torch.tensor(ids[1:])
    for s, reading in enumerate(found.readings):
        own = _reference(subject, ids, reading)
        kl = (final.exp() * (final - own)).sum(-1)
        close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(found.kl[s].double(), kl, **close)
        entropy = -(own.exp() * own).sum(-1)
        torch.testing.assert_close(found.entropy[s].double(), entropy, **close)
        true = own[:-1].gather(1, target[:, None])
        torch.testing.assert_close(found.log_probability[s, :-1].double(), true[:, 0], **close)
        ranks = (own[:-1] > true).sum(-1) + 1
        # Rounding can swap neighbours.
        assert (found.rank[s, :-1] - ranks).abs().max() <= 1
        shares, _ = own.exp().topk(found.top_ids.shape[-1])
        torch.testing.assert_close(found.top_probabilities[s].double(), shares, **close)
        picked = own.exp().gather(1, found.top_ids[s])
        torch.testing.assert_close(found.top_probabilities[s].double(), picked, **close)
    assert found.probability[:, -1].isnan().all()
    assert not found.rank[:, -1].any()
    assert found.readings[-1] == Reading(len(subject.architecture.blocks) - 1, "resid_post")
    assert not found.kl[-1].any()
    assert torch.equal(found.top_ids[-1, :, 0], logits.argmax(-1))


@pytest.mark.parametrize("family", sorted(({*FAMILIES} - {*ENCODERS}) | {*MIXTURES} | {*STREAMS}))
def test_reads_every_decoder_with_its_own_norm_and_head(family: str, tokenizer: Any) -> None:
    subject = _subject(build(family), tokenizer)
    ids = _ids()
    found = run_lens(subject, ids)
    _check(subject, found, ids)
    streams = {reading.stream for reading in found.readings}
    has_middle = family not in (*PARALLEL, "cohere", "gptj", "phi", "stablelm_parallel")
    assert ("resid_mid" in streams) == has_middle
    assert (found.missing is None) == has_middle
    assert found.readings[0] == Reading(0, "resid_pre")
    assert [r for r in found.readings if r.stream == "resid_pre"] == [found.readings[0]]


def test_a_few_positions_at_a_time_give_the_same(tokenizer: Any) -> None:
    subject = _subject(build("gemma2"), tokenizer)
    ids = _ids()
    whole, small = run_lens(subject, ids), run_lens(subject, ids, n_at_once=2)
    for name in ("kl", "entropy", "log_probability", "top_probabilities"):
        torch.testing.assert_close(
            getattr(whole, name), getattr(small, name), equal_nan=True, rtol=1e-4, atol=1e-6
        )
    assert torch.equal(whole.top_ids, small.top_ids)
    assert torch.equal(whole.rank, small.rank)
    assert whole.baseline == pytest.approx(small.baseline, rel=1e-5)


def test_nothing_is_as_large_as_tokens_times_vocabulary(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    subject = _subject(build("llama"), tokenizer)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            # All but the head's own weight.
            if isinstance(out, Tensor) and out.shape[-1:] == (320,) and out.shape != (24, 320):
                largest = max(largest, out.numel())
            return out

    monkeypatch.setattr(measuring, "BUFFER_BYTES", 4 * 320 * 16)
    ids, _ = _ids(60), subject.readout
    with Watch():
        run_lens(subject, ids)
    assert largest == 16 * 320


@pytest.mark.parametrize("width", [40, 64 * 11, 64 * 11 + 5, 64 * 30])
def test_the_quick_search_finds_the_highest(width: int) -> None:
    numbers = torch.randn(7, width)
    # Of a whole column, and at both ends.
    numbers[0, : 64 * 5 : 64] += 9
    numbers[1, -3:] += 9
    numbers[2, :2] += 9
    values, ids = find_highest(numbers, 5)
    expected = numbers.topk(5)
    assert torch.equal(values, expected.values)
    assert torch.equal(ids, expected.indices)


def test_reads_some_positions_alone(tokenizer: Any) -> None:
    subject = _subject(build("llama"), tokenizer)
    ids = _ids()
    whole, some = run_lens(subject, ids), run_lens(subject, ids, positions=[-1, 2], n_top=3)
    assert some.positions == (2, 8)
    torch.testing.assert_close(some.kl, whole.kl[:, [2, 8]], rtol=1e-4, atol=1e-6)
    assert torch.equal(some.rank, whole.rank[:, [2, 8]])
    assert torch.equal(some.top_ids, whole.top_ids[:, [2, 8], :3])
    rows = list(some.rows)
    assert len(rows) == 2 * len(some.readings)
    assert rows[1].position == 8
    assert rows[1].probability is None
    assert rows[0].rank == int(whole.rank[0, 2])


def test_the_models_own_prediction_is_read_whatever_streams_are(tokenizer: Any) -> None:
    subject = _subject(build("llama"), tokenizer)
    found = run_lens(subject, _ids(), streams=("resid_mid",))
    streams = [reading.stream for reading in found.readings]
    assert streams == ["resid_mid", "resid_mid", "resid_post"]
    assert found.summaries[-1].agreement == 1


def test_a_guess_that_is_the_same_everywhere_is_the_baseline(tokenizer: Any) -> None:
    subject = _subject(build("llama"), tokenizer)
    ids = _ids()
    found = run_lens(subject, ids)
    final = _reference(subject, ids, found.readings[-1])[found.counted]
    mean = final.exp().mean(0)
    expected = (final.exp() * (final - mean.log())).sum(-1).mean()
    assert found.baseline == pytest.approx(float(expected), rel=1e-4)
    assert run_lens(subject, ids[:1]).baseline is None


def test_tells_where_the_prediction_settles(tokenizer: Any) -> None:
    subject = _subject(build("llama"), tokenizer)
    found = run_lens(subject, _ids())
    found.top_ids[:, 0, 0] = torch.tensor([4, 7, 4, 4, 4])
    found.top_ids[:, 1, 0] = torch.tensor([4, 4, 4, 4, 7])
    found.top_ids[:, 2, 0] = 4
    assert [found.settled(k) for k in range(3)] == [found.readings[k] for k in (2, 4, 0)]
    assert found.summaries[-1].agreement == 1
    assert found.as_dict()["settled"][0]["layer"] == found.readings[2].layer


def test_averages_leave_out_tokens_with_outlying_norms(tokenizer: Any) -> None:
    model = build("llama")
    ids = _ids()
    with torch.no_grad():
        model.get_input_embeddings().weight[ids[0]] *= 1000
    found = run_lens(_subject(model, tokenizer), ids)
    out = {each.position for each in found.outliers}
    assert 0 in out
    kept = [k for k in range(N_TOKENS) if k not in out]
    assert found.summaries[1].kl == pytest.approx(float(found.kl[1, kept].double().mean()))
    assert found.outliers_left_out
    kept_all = run_lens(_subject(model, tokenizer), ids, keep_outliers=True)
    assert kept_all.outliers == found.outliers
    assert kept_all.summaries[1].kl == pytest.approx(float(found.kl[1].double().mean()))
    assert not kept_all.as_dict()["outliers_left_out"]
    assert outlier_words(kept_all) != outlier_words(found)


def test_a_loss_is_known_where_the_probability_is_too_small_for_a_number(tokenizer: Any) -> None:
    model = build("llama")
    with torch.no_grad():
        model.lm_head.weight *= 1000
    found = run_lens(_subject(model, tokenizer), _ids())
    assert not found.probability[:, :-1].all()
    own = _reference(_subject(model, tokenizer), list(found.ids), found.readings[0])[:-1]
    loss = -own.gather(1, torch.tensor(found.ids[1:])[:, None])[:, 0][found.counted[:-1]].mean()
    assert found.summaries[0].loss == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("family", ENCODERS)
def test_refuses_encoders(family: str, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="encoder"):
        run_lens(_subject(build(family), tokenizer), _ids())


def test_refuses_what_it_cannot_read(tokenizer: Any) -> None:
    subject = _subject(build("gpt_neox"), tokenizer)
    with pytest.raises(UserError, match="empty"):
        run_lens(subject, [])
    with pytest.raises(UserError, match="65 tokens"):
        run_lens(subject, _ids(65))
    wrong: list[tuple[str, Any, dict[str, Any]]] = [
        ("n_top", 0, {"n_top": 0}),
        ("position", 9, {"positions": [9]}),
        ("streams", "mlp_out", {"streams": ["mlp_out"]}),
        # Its attention and MLP read the same stream.
        ("streams", "resid_mid", {"streams": ["resid_mid"]}),
    ]
    for setting, value, given in wrong:
        with pytest.raises(SettingError) as caught:
            run_lens(subject, _ids(), **given)
        assert (caught.value.setting, caught.value.value) == (setting, value)


def test_does_not_change_the_model(tokenizer: Any) -> None:
    model = build("bloom")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    subject, ids = _subject(model, tokenizer), _ids()
    with torch.no_grad():
        logits = model(**subject.inputs(ids)).logits
        run_lens(subject, ids)
        assert torch.equal(model(**subject.inputs(ids)).logits, logits)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
