"""Where what is made once a machine is kept: built libraries, and the tilings that were measured."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return the user's folder for built kernels."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "uniphy-lab" / "kernels"
