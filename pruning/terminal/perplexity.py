"""``pruning perplexity``: how well a model predicts a text."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from projector.terminal.screen import Screen
from pruning.terminal.options import Device, Dtype, Json, Model, Revision, TrustRemoteCode

Corpus = Annotated[
    str,
    typer.Option(
        help="{sources}.",
        show_default=False,
    ),
]
ProtocolName = Annotated[
    str,
    typer.Option(
        help="How text is cut and scored. [b]windows[/b]: windows that don't overlap; "
        "[b]stride[/b]: windows that do; [b]gptq-2048[/b]; [b]lm-eval-word[/b]: per document "
        "and word."
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(
        help="Tokens from one window's start to the next one's, for --protocol stride. By default "
        "1,024, or half a window.",
        show_default=False,
    ),
]
MaxWindows = Annotated[
    int | None,
    typer.Option(
        help="Maximum number of windows, drawn evenly over the corpus. All by default.",
        show_default=False,
    ),
]
Detokenize = Annotated[
    bool,
    typer.Option(
        "--detokenize",
        help="Undo WikiText's spaces around punctuation, for --protocol lm-eval-word.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Windows scored at once. By default as many as fit in the memory set aside.",
        show_default=False,
    ),
]


def perplexity(
    model: Model = "bundled",
    corpus: Corpus = ...,  # type: ignore[assignment]
    protocol: ProtocolName = "windows",
    stride: Stride = None,
    max_windows: MaxWindows = None,
    detokenize: Detokenize = False,
    batch_size: BatchSize = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Measure how well MODEL predicts a text: perplexity and bits per byte."""
    screen = Screen(as_json)
    with screen.errors():
        from projector.corpus.sources import read_documents
        from projector.model.context import find_context
        from projector.model.loading import load_model
        from pruning.scoring.perplexity import score
        from pruning.scoring.windows import check_options, prepare

        # What is wrong with them is told before a model is loaded.
        check_options(protocol, stride, max_windows, detokenize)
        read_documents(corpus)
        with screen.progress() as progress:
            progress.begin("Loading the model", None, "")
            loaded = load_model(
                model,
                revision=revision,
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                with_head=True,
            )
            text = prepare(
                corpus,
                loaded.tokenizer,
                find_context(loaded.model, loaded.tokenizer),
                protocol,
                stride=stride,
                max_windows=max_windows,
                detokenize=detokenize,
                progress=progress,
            )
            found = score(loaded.model, text, batch_size=batch_size, progress=progress)
        value = {
            "model": loaded.identifier,
            "weights_sha256": loaded.weights_sha256,
            "corpus": text.source,
            "protocol": text.protocol,
            "description": text.description,
            "n_documents": text.n_documents,
            "n_windows": text.n_windows,
        }
        screen.result(value | found.figures(), "\n".join(_lines(found, text)))


def _lines(found: Any, text: Any) -> list[str]:
    """What a person reads of a score."""
    from pruning.terminal.tables import known

    figures = found.figures()
    per_word = " per word" if found.n_words is not None else ""
    lines = [
        f"[b]perplexity   [/b] {known(figures['perplexity'])}{per_word}",
        f"[b]bits per byte[/b] {known(figures['bits_per_byte'])}",
        f"[b]scored       [/b] {found.n_tokens:,} tokens"
        + ("" if found.n_bytes is None else f", {found.n_bytes:,} bytes")
        + ("" if found.n_words is None else f", {found.n_words:,} words"),
        f"[b]protocol     [/b] {escape(text.description)}",
    ]
    if figures["reason"]:
        lines.append(f"[yellow]–[/yellow] {escape(figures['reason'])}")
    return lines
