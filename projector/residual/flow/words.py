"""The results of a stream in sentences, the same on the terminal and in a report."""

from __future__ import annotations

from projector.corpus.pieces import readable
from projector.residual.bigrams.paths import ATTENTION_FREE, DIRECT, ZeroLayer
from projector.residual.bigrams.scores import BIGRAM, UNIGRAM, PathScore
from projector.residual.flow.records import Flow, OutlierToken

# What each prediction is called, and what it is.
PATHS = {
    DIRECT: ("direct path", "W_U W_E: a token's embedding through the final norm and the head"),
    ATTENTION_FREE: (
        "attention-free path",
        "a token's embedding through the MLPs of all blocks, as if attention had written nothing",
    ),
    UNIGRAM: ("most frequent token", "how often each token occurs, whatever comes before it"),
    BIGRAM: (
        "bigram counts",
        "how often each token follows the one before: no prediction from it can be better",
    ),
}
_MOST_NAMED = 6


def number(value: float | None, form: str = ".2f") -> str:
    """Format a number with a typographic minus, and 0 without a sign; a dash for None."""
    if value is None:
        return "–"
    text = format(value, form)
    is_zero = not any(digit in text for digit in "123456789")
    return text.lstrip("+-") if is_zero else text.replace("-", "−")


def tokens_words(flow: Flow) -> str:
    """Describe the tokens in the means."""
    text = f"Means over {flow.n_tokens:,} {_plural(flow.n_tokens, 'token')}"
    if flow.n_sequences > 1:
        text += f" of {flow.n_sequences:,} sequences"
    if flow.n_skipped:
        which = "each sequence's first token" if flow.n_sequences > 1 else "the first token"
        text += f"; {which} does not count"
    if flow.n_left_out:
        are = "is" if flow.n_left_out == 1 else "are"
        text += f"; {flow.n_left_out:,} with an outlying norm {are} left out"
    return f"{text}. A norm is the length of one token's vector, ‖x‖."


def closing_words(flow: Flow) -> str:
    """Describe how well the sums close."""
    if flow.per_block_reason is None:
        what = "The parts sum to the stream after every block; the largest relative error is"
    else:
        what = f"In this model {flow.per_block_reason}. The largest relative error is"
    if not flow.additivity_error:
        return f"{what} 0."
    whole, step = (number(each, ".1e") for each in (flow.additivity_error, flow.step_error))
    if flow.per_block_reason is not None:
        return f"{what} {whole}, at {flow.worst}."
    return f"{what} {whole}; that of a single sum is {step}, at {flow.worst}."


def heads_words(flow: Flow) -> str:
    """Describe which heads add most, and how well heads sum to attention; "" for no heads."""
    norms = [(v, row.layer, i) for row in flow.rows for i, v in enumerate(row.heads or ())]
    if not norms or flow.heads_error is None:
        return ""
    strongest = sorted(norms, key=lambda each: -each[0])[:_MOST_NAMED]
    named = ", ".join(f"L{layer} H{head} {number(norm)}" for norm, layer, head in strongest)
    error = number(flow.heads_error, ".1e") if flow.heads_error else "0"
    without = [str(row.layer) for row in flow.rows if row.heads is None]
    more = ""
    if without:
        layers = f"{_plural(len(without), 'layer')} {', '.join(without)}"
        more = f" The attention of {layers} can't be split into heads."
    return (
        f"Heads that add most, by norm: {named}. A layer's heads and bias sum to its attention: "
        f"the largest error is {error} of the sum of their norms.{more}"
    )


def successive_words(flow: Flow) -> str:
    """Describe how similar the updates of successive layers are; "" for too few layers."""
    found = flow.successive
    if found is None:
        return "The model has too few layers to shuffle them."
    share = f"{found.percentile:.1f} % of the orders give less"
    if found.percentile == 100:
        share = "every order gives less"
    return (
        f"Cosine of successive updates: {number(found.mean)} on average. With the layers in random "
        f"order: {number(found.shuffled_mean)}, from {number(found.shuffled_least)} to "
        f"{number(found.shuffled_most)} in {found.n_draws:,} orders; {share}."
    )


def outlier_words(flow: Flow) -> str:
    """Describe the tokens with an outlying norm, and whether means include them."""
    if not flow.n_outlying:
        return "No token's norm is many times the median."
    named = ", ".join(_outlier(each) for each in flow.outliers[:_MOST_NAMED])
    more = len(flow.outliers) - _MOST_NAMED
    named += f", and {more} more" if more > 0 else ""
    them = "it" if flow.n_outlying == 1 else "them"
    done = f"Means leave {them} out" if flow.outliers_left_out else f"Means count {them}"
    counted = f"{flow.n_outlying:,} {_plural(flow.n_outlying, 'token')}"
    has = "has" if flow.n_outlying == 1 else "have"
    if not flow.outliers_left_out and flow.n_skipped and any(e.is_first for e in flow.outliers):
        done += ", except first tokens"
    return f"{counted} {has} a norm many times the median: {named}. {done}."


def _outlier(each: OutlierToken) -> str:
    where = "before layer 0" if each.layer < 0 else f"after layer {each.layer}"
    times = "not finite" if each.times_usual is None else f"{each.times_usual:,.0f} times"
    first = " as the first token" if each.is_first else ""
    count = f"{each.n:,} × " if each.n > 1 else ""
    return f"{count}'{readable(each.text)}'{first} ({times}, {where})"


def zero_layer_words(found: ZeroLayer) -> tuple[str, ...]:
    """Describe the scores, in a sentence or two each."""
    lines = [
        f"{found.n_bigrams:,} bigrams of the text, with {found.n_first:,} different first tokens. "
        f"The entropy of what follows a token is {number(found.entropy)} nats on average.",
        *(_path_words(found.path(name), found.path(UNIGRAM)) for name in (DIRECT, ATTENTION_FREE)),
        symmetry_words(found),
    ]
    return (*lines, found.positions) if found.positions else tuple(lines)


def _path_words(path: PathScore, unigram: PathScore) -> str:
    name = PATHS[path.name][0]
    return (
        f"The {name} agrees with the most frequent next token for {path.score.agreement:.1%} of "
        f"bigrams; the text's most frequent token alone does for {unigram.score.agreement:.1%}, "
        f"and for shuffled bigrams the path agrees with {path.shuffled.agreement:.1%}."
    )


def layers_legend() -> str:
    """Explain the columns of the table of layers."""
    return (
        "before, update: norms of the stream that the layer reads and of all that it adds; share: "
        "how much of the update the part makes up; along: cosine of the update and the stream; "
        "next: cosine of the update and the next layer's"
    )


def scores_legend(found: ZeroLayer) -> str:
    """Explain the columns of the table of zero-layer paths."""
    return (
        "agrees: share of bigrams whose first token has, as its top prediction, a token that "
        "follows it most often; right: share of bigrams whose second token is the top prediction; "
        "log p: mean log probability of the second token, in nats; KL is KL(counts ‖ prediction), "
        "mean over first tokens, in nats; shuffled: the same with second tokens drawn at random "
        f"from all of the text's, mean of {found.n_shuffles} draws"
    )


def alone_legend() -> str:
    """Explain the table of predictions from single tokens."""
    return "Each token's top prediction from that token alone, and its probability."


def symmetry_words(found: ZeroLayer) -> str:
    """Describe whether the direct path can encode which token comes second."""
    measured = (
        f"measured asymmetry {number(found.asymmetry, '.1g')}, and "
        f"{number(found.asymmetry_shuffled, '.2f')} with the head's rows shuffled"
    )
    again = (
        f"For {found.itself[DIRECT]:.0%} of bigrams its top prediction is the first token again."
    )
    tied = "The head's rows are the token embeddings (tied)" if found.tied else ""
    if found.symmetric:
        return (
            f"{tied + '. So the' if tied else 'The'} direct path is symmetric: it gives b after a "
            f"the same logit as a after b, up to the scale of the norm ({measured}). It can't "
            f"encode which of two tokens comes second. {again}"
        )
    if not tied:
        return (
            "The head's rows are not the token embeddings, so the direct path may encode an "
            f"order ({measured})."
        )
    if not found.broken_by:
        return f"{tied}, yet the direct path is not symmetric ({measured}). {again}"
    parts = [f"{what} ({number(value)} alone)" for what, value in found.broken_by.items()]
    verb = "makes" if len(parts) == 1 else "make"
    return (
        f"{tied}. By themselves they would give b after a the same logit as a after b, but "
        f"{' and '.join(parts)} {verb} the direct path asymmetric ({measured}). {again}"
    )


def _plural(n: int, noun: str) -> str:
    return noun if n == 1 else f"{noun}s"
