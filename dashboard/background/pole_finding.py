"""Find poles of wide maps in a separate process.

HDBSCAN holds Python's global lock while it works. On a wide map that takes seconds, in which no
session could draw anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from projector.errors import UserError
from pruning.poles.files import load_poles
from pruning.poles.poles import Poles, PoleSettings

# Up to this many neurons, finding poles takes less time than starting a process.
MOST_AT_ONCE = 8_000
_LOOK_EVERY_S = 0.2


def find_apart(
    folder: Path,
    layer: int,
    site: str,
    layout: str,
    settings: PoleSettings,
    waiting: Callable[[], None],
) -> Poles:
    """Find poles with ``pruning poles``, which saves them with the projection.

    Args:
        layout: the layout on whose map they are found.
        waiting: called repeatedly meanwhile; an exception in it ends the process.

    Raises:
        UserError: with the command's error, if it failed.
    """
    command = [
        sys.executable, "-m", "pruning", "poles",
        "--layer", str(layer),
        "--site", site,
        "--space", settings.space,
        "--min-cluster-size", str(settings.min_cluster_size),
        "--min-samples", str(settings.effective_min_samples),
        "--selection", settings.selection,
        "--epsilon", str(settings.epsilon),
        *(["--layout", layout] if settings.space == "positions" else []),
        "--no-controls",
        "--json",
        # A folder's name must not be read as an option.
        "--", str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                said, _ = process.communicate(timeout=_LOOK_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                waiting()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    ended_well = process.returncode == 0
    found = load_poles(folder, layer, site, settings, layout) if ended_well else None
    if found is None:
        raise _error(said, process.returncode)
    return found


def _error(said: bytes, status: int) -> UserError:
    """The error that the command printed as JSON."""
    try:
        return UserError.of_record(json.loads(said))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    if status > 0:
        return UserError(f"the command that finds poles ended with status {status}")
    return UserError(
        "the process that finds poles was killed from outside; memory may have run out"
    )
