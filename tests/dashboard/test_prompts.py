"""Prompts: what is made of the text, and what the model does on it, against plain Transformers."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dashboard import prompts
from dashboard.guest import Guest
from dashboard.prompts import (
    STORED_PROMPTS,
    Prompt,
    align,
    can_generate,
    continue_prompt,
    encode,
    has_chat,
    recall,
    run_prompt,
    store,
)
from projector.corpus.pieces import Pieces, readable
from projector.model.architecture.finding import find_architecture
from projector.model.prompting import MOST_CHARACTERS, clean, is_empty
from projector.storage.bounded import BoundedFolder
from tests.dashboard.conftest import DECODER, ENCODER, GPT2
from tests.families import ENCODERS, FAMILIES
from tests.refused import refused_naming

Guests = Callable[[str], Guest]
TEXT = "kalo mi ten\nraso <script>alert(1)</script>"
N_CONTEXT = 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x00b\x1b[31mc\x7fd\x9be", "ab[31mcde"),
        ("a\r\nb\rc", "a\nbc"),
        ("a\n\tb ", "a\n\tb "),
        ("a\ud800b\udfffc", "abc"),
        ("a\ue000b\U0010ffffc", "abc"),
        ("é 漢字 می\u200cخواهم 👩\u200d🚀", "é 漢字 می\u200cخواهم 👩\u200d🚀"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_text_is_cleaned_of_what_no_keyboard_types(text: str, expected: str) -> None:
    assert clean(text) == expected
    assert clean(expected) == expected
    expected.encode("utf-8")


@pytest.mark.parametrize("text", ["", "  \n\t ", "\x00\x07", "\ud83d", " \x1b\n"])
def test_nothing_is_no_prompt(text: str) -> None:
    with refused_naming("prompt", "empty"):
        clean(text)


def test_a_library_is_no_prompt() -> None:
    assert len(clean("x" * MOST_CHARACTERS)) == MOST_CHARACTERS
    with refused_naming("200,001", "200,000"):
        clean("x" * (MOST_CHARACTERS + 1))


def with_tokenizer(guest: Guest, change: Callable[[Any], None]) -> Guest:
    """The same model with a tokenizer that was changed."""
    tokenizer = copy.deepcopy(guest.loaded.tokenizer)
    change(tokenizer)
    return Guest(replace(guest.loaded, tokenizer=tokenizer), guest.architecture)


def test_tokens_are_the_tokenizers_own(guest: Guests) -> None:
    for family in (DECODER, GPT2, ENCODER):
        found = guest(family)
        assert encode(found, Prompt(TEXT)) == found.loaded.tokenizer(TEXT)["input_ids"]


def bare(tokenizer: Any) -> None:
    """Without the token that it begins texts with."""
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()


def test_a_causal_model_has_a_token_before_the_text(guest: Guests) -> None:
    """As a document in a corpus has: nothing is known of what follows nothing."""
    decoder, encoder = (with_tokenizer(guest(family), bare) for family in (DECODER, ENCODER))
    plain = decoder.loaded.tokenizer(TEXT)["input_ids"]
    assert plain[0] != 0
    assert encode(decoder, Prompt(TEXT)) == [0, *plain]
    assert encode(encoder, Prompt(TEXT)) == plain


def chatty(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )


def test_a_chat_is_written_by_the_models_template(guest: Guests) -> None:
    found = with_tokenizer(guest(DECODER), chatty)
    assert has_chat(found)
    assert not has_chat(guest(DECODER))
    expected = found.loaded.tokenizer(f"[user]{TEXT}[assistant]", add_special_tokens=False)
    assert encode(found, Prompt(TEXT, as_chat=True)) == expected["input_ids"]
    with refused_naming("chat template"):
        encode(guest(DECODER), Prompt(TEXT, as_chat=True))


@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(family: str, guest: Guests) -> None:
    found = guest(family)
    n_tokens = len(encode(found, Prompt(TEXT)))
    room = N_CONTEXT - n_tokens
    assert len(encode(found, Prompt(TEXT, room))) == n_tokens
    with refused_naming(f"{n_tokens} tokens", room + 1, N_CONTEXT, "1 token"):
        encode(found, Prompt(TEXT, room + 1))
    n_long = len(found.loaded.tokenizer(TEXT * 20)["input_ids"])
    with refused_naming(f"{n_long} tokens", 64, f"{n_long - 64} tokens"):
        encode(found, Prompt(TEXT * 20))


def test_an_encoder_is_asked_for_no_room_it_does_not_need(guest: Guests) -> None:
    found = with_tokenizer(guest(ENCODER), bare)
    n_most = int(found.loaded.model.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]
    text = found.loaded.tokenizer.decode([5] * (n_most - 2))
    n_tokens = len(encode(found, Prompt(text)))
    assert n_most - 24 < n_tokens <= n_most
    assert len(encode(found, Prompt(text, 24))) == n_tokens


PLACES: dict[str, Callable[[Any, int], dict[str, tuple[nn.Module, str]]]] = {
    DECODER: lambda model, layer: {
        "mlp_post": (model.model.layers[layer].mlp.down_proj, "input"),
        "attn_out": (model.model.layers[layer].self_attn.o_proj, "output"),
        "attn_z": (model.model.layers[layer].self_attn.o_proj, "input"),
    },
    GPT2: lambda model, layer: {
        "mlp_post": (model.transformer.h[layer].mlp.c_proj, "input"),
        "attn_out": (model.transformer.h[layer].attn.c_proj, "output"),
        "resid_pre": (model.transformer.h[layer], "input"),
    },
    ENCODER: lambda model, layer: {
        "mlp_post": (model.bert.encoder.layer[layer].output.dense, "input"),
        "attn_out": (model.bert.encoder.layer[layer].attention.output.dense, "output"),
    },
}


def hooked(model: Any, places: dict[Any, tuple[nn.Module, str]], ids: list[int]) -> dict[Any, Any]:
    """What passes some modules, by hooks of one's own."""
    passed: dict[Any, Tensor] = {}
    handles = []
    for key, (module, side) in places.items():

        def read(_: Any, args: Any, output: Any = None, key: Any = key, side: str = side) -> None:
            tensor = args[0] if side == "input" else output
            passed[key] = tensor if isinstance(tensor, Tensor) else tensor[0]

        handles.append(
            module.register_forward_pre_hook(read)
            if side == "input"
            else module.register_forward_hook(read)
        )
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return {key: tensor[0].numpy() for key, tensor in passed.items()}


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("family", list(PLACES))
def test_activations_are_those_that_plain_hooks_see(family: str, guest: Guests) -> None:
    found = guest(family)
    model: Any = found.loaded.model
    places = {
        (layer, site): place
        for layer in range(2)
        for site, place in PLACES[family](model, layer).items()
    }
    before = n_hooks(model)
    advanced: list[int] = []
    run = run_prompt(found, Prompt(TEXT, 5), list(places), advance=advanced.append)
    assert n_hooks(model) == before
    ids = [piece.id for piece in run.pieces]
    n_new = 0 if family == ENCODER else len(ids) - run.n_prompt
    assert sum(advanced) == n_new
    assert ids[: run.n_prompt] == encode(found, Prompt(TEXT))
    # The tokens that are added are read too; an encoder adds none.
    assert (n_new > 0) == (family != ENCODER) == can_generate(found)
    assert [piece.is_made for piece in run.pieces] == [False] * run.n_prompt + [True] * n_new
    expected = hooked(model, places, ids)
    assert set(run.activations) == set(expected)
    for key, values in run.activations.items():
        assert values.dtype == np.float16
        np.testing.assert_allclose(values, expected[key], rtol=2e-3, atol=2e-3)
    assert run.text == found.loaded.tokenizer.decode(ids)
    assert [piece.is_special for piece in run.pieces] == [i == 0 for i in ids]


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ENCODERS])
def test_a_prompt_goes_on_as_generate_has_it(family: str, guest: Guests) -> None:
    found = guest(family)
    prompt = Prompt("kalo mi", 12)
    ids = encode(found, prompt)
    model: Any = found.loaded.model
    made = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        max_new_tokens=12,
        do_sample=False,
    )[0].tolist()
    run = run_prompt(found, prompt, [(0, "mlp_out")])
    assert [piece.id for piece in run.pieces] == made
    assert continue_prompt(found, prompt) == found.loaded.tokenizer.decode(made[len(ids) :])
    assert continue_prompt(found, replace(prompt, n_new=0)) == ""


@pytest.mark.parametrize("as_list", [False, True])
def test_what_the_model_ends_with_ends_it(as_list: bool, guest: Guests) -> None:
    found = guest(GPT2)
    prompt = Prompt("kalo mi", 8)
    n_prompt = len(encode(found, prompt))
    made = [piece.id for piece in run_prompt(found, prompt, []).pieces[n_prompt:]]
    last = made[3]
    n_expected = made.index(last) + 1
    model: Any = copy.deepcopy(found.loaded.model)
    model.generation_config.eos_token_id = [319, last] if as_list else last
    ending = Guest(replace(found.loaded, model=model), find_architecture(model))
    run = run_prompt(ending, prompt, [])
    assert [piece.id for piece in run.pieces[n_prompt:]] == made[:n_expected]


def test_work_that_is_stopped_leaves_no_hook(guest: Guests) -> None:
    found = guest(DECODER)
    before = n_hooks(found.loaded.model)

    class StopAsked(BaseException):
        pass

    def stop(n: int) -> None:
        raise StopAsked

    with pytest.raises(StopAsked):
        run_prompt(found, Prompt(TEXT, 4), [(0, "mlp_post")], advance=stop)
    assert n_hooks(found.loaded.model) == before
    assert not found.loaded.model.training


def test_activations_that_are_not_finite_are_refused(guest: Guests) -> None:
    found = guest(DECODER)
    model: Any = copy.deepcopy(found.loaded.model)
    broken = Guest(replace(found.loaded, model=model), find_architecture(model))
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.inf
    maps = [(0, "mlp_post"), (1, "mlp_post")]
    with refused_naming("layer 1", "--dtype float32"):
        run_prompt(broken, Prompt(TEXT), maps)
    assert n_hooks(model) == 0


def test_activations_beyond_half_precision_stay_finite(guest: Guests) -> None:
    found = guest(DECODER)
    model: Any = copy.deepcopy(found.loaded.model)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1e7)
    big = Guest(replace(found.loaded, model=model), find_architecture(model))
    values = run_prompt(big, Prompt(TEXT), [(0, "mlp_post")]).activations[0, "mlp_post"]
    assert np.isfinite(values).all()
    assert np.abs(values).max() > 5e4


@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_next_tokens_are_the_most_probable_ones_at_each_token(
    family: str, guest: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = guest(family)
    model, tokenizer = found.loaded.model, found.loaded.tokenizer
    run = run_prompt(found, Prompt(TEXT, 3), [(0, "mlp_post")])
    ids = torch.tensor([[piece.id for piece in run.pieces]])
    with torch.no_grad():
        shares = model(input_ids=ids).logits[0].float().softmax(1)[:, : len(tokenizer)]
    assert len(run.nexts) == len(run.pieces)
    for told, row in zip(run.nexts, shares, strict=True):
        values, best = row.topk(5)
        np.testing.assert_allclose([each.probability for each in told], values, rtol=1e-4)
        alone = [readable(Pieces.of_tokenizer(tokenizer, [i]).text(i)) for i in best.tolist()]
        assert [each.text for each in told] == alone
    # What is generated greedily is what was told first.
    made = [k for k, piece in enumerate(run.pieces) if piece.is_made]
    assert made
    assert all(shares[k - 1].argmax() == run.pieces[k].id for k in made)
    # A text too long for all its logits is run all the same.
    monkeypatch.setattr(prompts, "_MOST_LOGITS", 10)
    without = run_prompt(found, Prompt(TEXT, 3), [(0, "mlp_post")])
    assert without.nexts == ()
    np.testing.assert_array_equal(
        without.activations[0, "mlp_post"], run.activations[0, "mlp_post"]
    )


def test_an_encoder_expects_no_next_token(guest: Guests) -> None:
    assert run_prompt(guest(ENCODER), Prompt(TEXT), []).nexts == ()


@pytest.mark.parametrize("text", ["", " \n\t", "\x00\x07 "])
def test_a_text_of_which_nothing_is_seen_is_empty(text: str) -> None:
    assert is_empty(text)
    assert not is_empty(text + "x")


@pytest.mark.parametrize(
    ("a", "b", "rows"),
    [
        ("abc", "abc", [(0, 0), (1, 1), (2, 2)]),
        ("abc", "axbc", [(0, 0), (-1, 1), (1, 2), (2, 3)]),
        ("axbc", "abc", [(0, 0), (1, -1), (2, 1), (3, 2)]),
        ("axc", "ayc", [(0, 0), (1, 1), (2, 2)]),
        ("axyc", "azc", [(0, 0), (1, 1), (2, -1), (3, 2)]),
        ("ab", "", [(0, -1), (1, -1)]),
        ("", "", []),
    ],
)
def test_two_prompts_are_aligned_by_what_they_share(
    a: str, b: str, rows: list[tuple[int, int]]
) -> None:
    first, second = align([ord(c) for c in a], [ord(c) for c in b])
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == rows
    assert [i for i in first.tolist() if i >= 0] == list(range(len(a)))
    assert [j for j in second.tolist() if j >= 0] == list(range(len(b)))


PROMPTS = (
    Prompt("kalo"),
    Prompt("kalo", 24),
    Prompt("kalo", 24, True),
    Prompt('"quoted" \\ <script>\n✓🙂', 3),
)


def prompts_in(folder: Path) -> BoundedFolder:
    return BoundedFolder(folder, (STORED_PROMPTS,), 10_000_000)


def test_a_stored_prompt_is_found_by_its_id(tmp_path: Path) -> None:
    folder = prompts_in(tmp_path / "not" / "yet")
    ids = [store(prompt, folder) for prompt in PROMPTS]
    assert len(set(ids)) == len(PROMPTS)
    assert [store(prompt, folder) for prompt in PROMPTS] == ids
    assert [recall(each, folder) for each in ids] == list(PROMPTS)
    assert len(folder.files()) == len(PROMPTS)


@pytest.mark.parametrize(
    "forged",
    ["", "../secret", "0123456789ABCDEF", "0" * 15, "0" * 17, "0" * 15 + "/", "0" * 15 + "\n",
     "٠" * 16, "/etc/passwd", "x" * 10_000],
)  # fmt: skip
def test_an_id_that_is_none_reads_no_file(forged: str, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text(json.dumps({"text": "s", "n_new": 0, "as_chat": False}))
    (tmp_path / "prompts").mkdir()
    with refused_naming(repr(forged[:40])) as refused:
        recall(forged, prompts_in(tmp_path))
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b'{"text": "x"}', b"\xff\xfe", b'{"text":"x","n_new":null}']
)
def test_a_prompt_that_is_not_here_or_damaged_says_so(
    content: bytes | None, tmp_path: Path
) -> None:
    name = "0123456789abcdef"
    if content is not None:
        (tmp_path / "prompts").mkdir()
        (tmp_path / "prompts" / f"{name}.json").write_bytes(content)
    with refused_naming(f"prompt {name}"):
        recall(name, prompts_in(tmp_path))


def test_many_sessions_keep_the_same_prompt_at_once(tmp_path: Path) -> None:
    folder = prompts_in(tmp_path)
    n, problems = 16, list[BaseException]()
    for turn in range(20):
        ready = threading.Barrier(n)
        prompt = Prompt(f"kalo {turn}" * 2000)

        def keep(ready: threading.Barrier = ready, prompt: Prompt = prompt) -> None:
            try:
                ready.wait()
                assert recall(store(prompt, folder), folder) == prompt
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=keep) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".partial"]


def test_a_place_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with refused_naming(tmp_path / "file" / "prompts"):
        store(PROMPTS[0], prompts_in(tmp_path / "file" / "prompts"))
