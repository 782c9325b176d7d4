"""Names of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name is one of the hub's, and not that of a file or folder here.

    What reads from the hub would take the file.
    """
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()
