"""Count the operations and bytes of a fit: ``python -m benchmarks.counts``.

A multiplication and an addition count as two operations, a square root and its reciprocal as one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

DIM = 3
N_TOKENS = 200_000
SEQUENCE = 256
BATCH = 16


@dataclass(frozen=True)
class Shape:
    """The shape of a model; N is the intermediate size, whose neurons are placed."""

    name: str
    hidden: int
    intermediate: int
    n_layers: int
    query_width: int
    key_width: int


SHAPES = (
    Shape("bundled", 192, 768, 6, 192, 64),
    Shape("Qwen2.5-0.5B", 896, 4_864, 24, 896, 128),
)


def forward_operations(shape: Shape) -> int:
    """Operations for one token through all blocks, without the head: projections, attention, gated
    MLP.
    """
    h, q, kv = shape.hidden, shape.query_width, shape.key_width
    projections = 2 * h * (q + 2 * kv) + 2 * q * h
    # Scores and weighted values; a causal token sees half the sequence, but a block computes all.
    attention = 2 * 2 * SEQUENCE * q
    mlp = 3 * 2 * h * shape.intermediate
    return shape.n_layers * (projections + attention + mlp)


def forward_bytes(shape: Shape) -> float:
    """Bytes for one token in float32: the inputs and outputs of each product, and its share of
    weights.
    """
    h, q, kv, n = shape.hidden, shape.query_width, shape.key_width, shape.intermediate
    weights = h * (q + 2 * kv) + q * h + 3 * h * n
    # Inputs and outputs of query, key and value; attention's output; gate and up; their product;
    # down.
    activations = (h + q + 2 * kv) + (q + h) + (h + 2 * n) + 3 * n + (n + h)
    return 4 * shape.n_layers * (weights / (SEQUENCE * BATCH) + activations)


def covariance_operations(shape: Shape) -> int:
    """Operations for one token: half of XᵀX of its row in each layer."""
    return shape.n_layers * shape.intermediate * (shape.intermediate + 1)


def covariance_bytes(shape: Shape) -> float:
    """Bytes for one token: its activations, read once, and its share of adding a batch's product.

    The product is written and read in float32, the float64 sums are read and written: 24 bytes an
    entry.
    """
    n = shape.intermediate
    return shape.n_layers * (4 * n + 24 * n * n / (SEQUENCE * BATCH))


def pass_operations(n: int, dim: int = DIM) -> int:
    """Operations of one pass over one map, with each pair once.

    A pair costs d differences, their squares and sum 2d, a reciprocal root, the distance, the
    misfit, its square and sum 2, the pull 1, and 4(d + 1) to add it to both neurons' sums.
    """
    return n * (n - 1) // 2 * (7 * dim + 10)


def pass_bytes(n: int, dim: int = DIM) -> int:
    """Bytes of one pass over one map: half the matrix in float32, and positions in and out."""
    return 4 * n * (n + 1) // 2 + 8 * n * dim


def matrix_free_operations(n: int, n_tokens: int, dim: int = DIM) -> int:
    """Operations of one matrix-free pass: half of Z·Zᵀ, and those of a pass."""
    return n * (n + 1) * n_tokens + pass_operations(n, dim)


def matrix_free_bytes(n: int, n_tokens: int, side: int = 128) -> int:
    """Bytes of one pass in float16 with tiles of ``side``: each tile's rows and columns, without
    cache hits; at least n·T·2.
    """
    n_blocks = -(-n // side)
    return n_blocks * (n_blocks + 1) // 2 * 2 * side * n_tokens * 2


def text(value: float) -> str:
    """A number with a prefix, such as 12.3 G."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if value < 1000:
            return f"{value:.3g} {prefix}".strip()
        value /= 1000
    return f"{value:.3g} E"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__)
    parser.parse_args(arguments)
    print(f"One token, all layers; sequences of {SEQUENCE} in batches of {BATCH}:\n")
    print("| model | what | operations | bytes | operations a byte |")
    print("| --- | --- | --- | --- | --- |")
    for shape in SHAPES:
        for what, operations, n_bytes in (
            ("forward pass", forward_operations(shape), forward_bytes(shape)),
            ("covariances of mlp_post", covariance_operations(shape), covariance_bytes(shape)),
        ):
            ratio = operations / n_bytes
            row = f"{text(operations)} | {text(n_bytes)} | {ratio:.3g}"
            print(f"| {shape.name} | {what} | {row} |")
    print(f"\nOne pass over one map, d = {DIM}:\n")
    print("| N | form | operations | bytes | operations a byte |")
    print("| --- | --- | --- | --- | --- |")
    for n in (768, 896, 4_864, 18_944):
        operations, n_bytes = pass_operations(n), pass_bytes(n)
        row = f"{text(operations)} | {text(n_bytes)} | {operations / n_bytes:.3g}"
        print(f"| {n:,} | stored | {row} |")
    n = 18_944
    operations, n_bytes = matrix_free_operations(n, n), matrix_free_bytes(n, n)
    row = f"{text(operations)} | {text(n_bytes)} | {operations / n_bytes:.3g}"
    print(f"| {n:,} | matrix-free, T = {n:,} | {row} |")
    print(f"\nA whole fit of {N_TOKENS:,} tokens, three maps a layer of 60 passes each:\n")
    print("| model | forward passes | covariances | positions |")
    print("| --- | --- | --- | --- |")
    for shape in SHAPES:
        positions = 3 * 60 * shape.n_layers * pass_operations(shape.intermediate)
        forward = N_TOKENS * forward_operations(shape)
        covariances = N_TOKENS * covariance_operations(shape)
        print(f"| {shape.name} | {text(forward)} | {text(covariances)} | {text(positions)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
