"""Where what is made once a machine is kept: built libraries, measured tilings, and whether the designs agree."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def cache_directory() -> Path:
    """Return the user's folder for built kernels."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "uniphy-lab" / "kernels"


def kept_in(name: str) -> dict[str, Any]:
    """Return what a JSON file of that folder holds; nothing where there is none, or no such file."""
    try:
        kept = json.loads((cache_directory() / name).read_text())
    except (OSError, RuntimeError, ValueError):  # RuntimeError: no home
        return {}
    return kept if isinstance(kept, dict) else {}


def keep_in(name: str, key: str, value: Any) -> None:
    """Keep `value` under `key` beside what the file holds."""
    path = cache_directory() / name
    kept = kept_in(name) | {key: value}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(kept, file, indent=1)
    os.replace(file.name, path)  # atomic: a reader sees a whole file
