"""Poles of wide maps, found by a process of their own.

HDBSCAN keeps Python to itself for as long as it works. On a wide map that is seconds, in which no
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

# Up to here they are found in less than starting a process takes.
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
    """As ``pruning poles`` finds them, and keeps them beside the projection.

    Args:
        layout: the layout on whose map they are looked for.
        waiting: called again and again meanwhile; raising in it ends the process.

    Raises:
        UserError: with the command's own reason, if it found none.
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
        # A folder's name is no option, whatever it is.
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
