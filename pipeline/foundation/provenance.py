"""What made an artefact: configs as plain JSON, their hashes, and the versions of everything that ran."""

import hashlib
import json
import math
import platform
import shutil
import subprocess
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, no_type_check

from pipeline.foundation.errors import ConfigError

_PACKAGES = ("uniphy-lab", "torch", "numpy", "scipy", "pandas", "pyarrow", "zarr", "wfdb", "safetensors")

T = TypeVar("T")


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package whose change may change a number."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


@no_type_check  # anything in, anything out: nothing to check, at every leaf of every configuration
def to_plain(value: Any) -> Any:
    """Turn nested dataclasses, mappings and sequences into what JSON can hold.

    Paths are left out of what is hashed and stored nowhere: a config that names one becomes its last part, so
    that no folder of a machine travels with an artefact.

    Raises
    ------
    ConfigError : a number that is not finite, or a value of a kind that JSON cannot hold
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(
            f"a config value is {value}; only finite numbers can be stored; use None for 'no limit'"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"a config value is a {type(value).__name__}, which JSON cannot hold; use plain values")


def from_plain(kind: type[T], values: Mapping[str, Any]) -> T:
    """Rebuild the dataclass `kind`, nested ones and tuples included, from the result of `to_plain`.

    Raises
    ------
    ConfigError : a field that `kind` does not have, or a missing one without a default
    """
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{kind.__name__} has no field {unknown}; it has {sorted(known)}")
    try:
        return kind(**{name: _restore(hints[name], value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind.__name__} cannot be built: {error}") from error


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, dataclasses opened."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(value: Any) -> str:
    """Return the sha256 (hex) of `canonical_json`: equal configs, however built, have equal hashes."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _restore(hint: Any, value: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if origin in (Union, types.UnionType):
        return _restore(next(part for part in arguments if part is not type(None)), value)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value)
    if origin is tuple or hint is tuple:
        inner = arguments[0] if arguments else Any
        return tuple(_restore(inner, item) for item in value)
    return value


@cache
def source_commit() -> str:
    """Return the commit of this project's own checkout, with "+ changes" where files differ from it; "" outside one."""
    root, git = Path(__file__).parents[2], shutil.which("git")
    if git is None or not (root / ".git").exists():
        return ""

    def ask(*words: str) -> str:
        done = subprocess.run(
            [git, "-C", str(root), *words], capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = ask("rev-parse", "--short=12", "HEAD")
    changed = bool(ask("status", "--porcelain", "--untracked-files=no"))
    return f"{commit} + changes" if commit and changed else commit
