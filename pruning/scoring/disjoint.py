"""Check that calibration and evaluation texts share no documents."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from projector.errors import UserError

# Shorter documents recur by chance: two of the held-out modules of the standard library are equal,
# word for word, to other modules.
_LEAST_TELLING_BYTES = 256
_MOST_SHARED = 0.01


def check_disjoint(
    calibration_hashes: Collection[str],
    evaluation_hashes: Mapping[str, int],
    calibration: str = "calibration",
    evaluation: str = "evaluation",
) -> None:
    """Raise a UserError if calibration text and evaluation text share documents.

    Short documents, such as an empty module's one line, recur by chance: they count only if they
    make up more than a hundredth of the text.

    Args:
        calibration_hashes: from :func:`projector.corpus.documents.hash_documents`.
        evaluation_hashes: :attr:`EvaluationText.document_hashes`.
        calibration: name of the source, for the message.
        evaluation: the same, for the evaluation text.
    """
    shared = set(calibration_hashes) & set(evaluation_hashes)
    sizes = [evaluation_hashes[each] for each in shared]
    n_bytes = sum(evaluation_hashes.values())
    is_telling = any(n >= _LEAST_TELLING_BYTES for n in sizes)
    if is_telling or sum(sizes) > _MOST_SHARED * n_bytes:
        n_shared = len(shared)
        raise UserError(
            f"calibration text '{calibration}' and evaluation text '{evaluation}' share "
            f"{n_shared:,} document{'s' if n_shared > 1 else ''} of {len(evaluation_hashes):,}: "
            "give other text"
        )
