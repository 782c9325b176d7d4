"""Names on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name is a hub id and not an existing local file or folder.

    Hub libraries would read the local file.
    """
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()
