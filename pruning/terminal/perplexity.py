"""``pruning perplexity``: how well a model predicts a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from projector.corpus.sources import read_documents, sources_help
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import LoadingOptions
from projector.terminal.screen import Screen
from pruning.terminal.options import Model


@dataclass(frozen=True)
class ScoringOptions:
    """The text, and how it is cut and scored."""

    corpus: str = setting(help=lambda: f"{sources_help()}.")
    protocol: str = setting(
        "windows",
        help="How text is cut and scored. [b]windows[/b]: windows that don't overlap; "
        "[b]stride[/b]: windows that do; [b]gptq-2048[/b]; [b]lm-eval-word[/b]: per document "
        "and word.",
    )
    stride: int | None = setting(
        None,
        help="Tokens from one window's start to the next one's, for --protocol stride. By default "
        "1,024, or half a window if that is less.",
    )
    max_windows: int | None = setting(
        None,
        help="Maximum number of windows, sampled evenly over the corpus. By default all.",
    )
    detokenize: bool = setting(
        False, help="Undo WikiText's spaces around punctuation, for --protocol lm-eval-word."
    )
    batch_size: int | None = setting(
        None,
        help="Windows per batch. By default as many as fit in the memory set aside for them.",
    )


@command
def perplexity(
    screen: Screen,
    model: Model = "bundled",
    *,
    options: ScoringOptions,
    loading: LoadingOptions,
) -> None:
    """Measure how well MODEL predicts a text: perplexity and bits per byte."""
    from projector.model.context import find_context
    from projector.model.loading import load_model
    from pruning.scoring.perplexity import score
    from pruning.scoring.windows import check_options, prepare

    cutting: dict[str, Any] = {
        "protocol": options.protocol,
        "stride": options.stride,
        "max_windows": options.max_windows,
        "detokenize": options.detokenize,
    }
    # Mistakes in them are reported before a model is loaded.
    check_options(**cutting)
    read_documents(options.corpus)
    with screen.progress() as progress:
        progress.begin("Loading the model", None, "")
        loaded = load_model(model, with_head=True, **vars(loading))
        text = prepare(
            options.corpus,
            loaded.tokenizer,
            find_context(loaded.model, loaded.tokenizer),
            **cutting,
            progress=progress,
        )
        found = score(loaded.model, text, batch_size=options.batch_size, progress=progress)
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
