"""Configs from stored values."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Config = TypeVar("Config")


def config_from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Build a config from what `dataclasses.asdict` gave, also after a round trip through JSON.

    Raises
    ------
    ValueError
        A field is unknown, or a value breaks the config's own rules.
    """
    known = [field.name for field in fields(cls)]  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(known)}."
        )
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
