"""Fields of a configuration by their dotted names: replaced together, listed, compared with the defaults."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints, no_type_check

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import canonical_json, to_plain

T = TypeVar("T")


def overridden(config: T, overrides: Mapping[str, str]) -> T:
    """Return `config` with fields replaced, e.g. ``{"training.epochs": "3"}``; the result is checked once, as a whole.

    Parameters
    ----------
    config : a frozen dataclass, nested as deep as need be, that JSON can hold
    overrides : dotted name of a field -> its new value, as JSON or as plain text

    Raises
    ------
    ConfigError
        No such field, a value of another kind, or a whole that contradicts itself.
    """
    if not overrides:
        return config
    plain = to_plain(config)
    for path, text in overrides.items():
        place, kind = plain, type(config)
        *parents, last = path.split(".")
        for name in parents:
            kind = _kind_of(kind, name, path)
            if not dataclasses.is_dataclass(kind):
                raise _no_single_value(path)
            place = place[name]
        kind = _kind_of(kind, last, path)
        if dataclasses.is_dataclass(kind):
            raise _no_single_value(path)
        place[last] = to_plain(_fitting(text, kind, path))
    try:
        return TypeAdapter(type(config)).validate_json(canonical_json(plain), strict=True)
    except ValidationError as problem:
        refusals = (_refusal(error, overrides) for error in problem.errors())
        raise ConfigError("; ".join(dict.fromkeys(refusals))) from None


def dotted(config: Any) -> dict[str, Any]:
    """Return every field of a nested configuration as plain values, by dotted name, in order."""
    return dict(_leaves("", to_plain(config)))


def differences(config: Any, default: Any) -> dict[str, Any]:
    """Return the fields of `config`, by dotted name, whose values are not those of `default`."""
    usual = dotted(default)
    return {name: value for name, value in dotted(config).items() if value != usual.get(name)}


@no_type_check  # see `to_plain`
def _leaves(prefix: str, plain: Any) -> list[tuple[str, Any]]:
    if not isinstance(plain, Mapping):
        return [(prefix, plain)]
    inner = ((f"{prefix}.{name}" if prefix else name, value) for name, value in plain.items())
    return [leaf for name, value in inner for leaf in _leaves(name, value)]


def _kind_of(owner: Any, name: str, path: str) -> Any:
    known = [field.name for field in dataclasses.fields(owner)]
    if name not in known:
        raise ConfigError(f"Override {path!r}: there is no field {name!r}; choose from {', '.join(known)}.")
    return get_type_hints(owner)[name]


def _no_single_value(path: str) -> ConfigError:
    return ConfigError(f"Override {path!r} must name a single value, such as training.epochs.")


def _fitting(text: str, kind: Any, path: str) -> Any:
    """Return the value that `text` stands for, as JSON or as it is, if it is of the field's kind."""
    checked = TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))
    try:
        return checked.validate_json(text)
    except ValidationError as problem:
        as_json = problem.errors()
    try:
        return checked.validate_python(text)
    except ValidationError as problem:
        shown = problem.errors() if as_json[0]["type"] == "json_invalid" else as_json
    remedy = '; write a list as JSON, such as ["mt_pcs"] or [0, 1]' if "tuple" in str(kind) else ""
    first, *others = dict.fromkeys(
        str(error["msg"]) for error in shown
    )  # one for each kind that the field may have
    rule = " or ".join([first, *(other.removeprefix("Input should be ") for other in others)])
    raise ConfigError(f"Override {path!r} = {text!r} is refused: {rule}{remedy}.")


def _refusal(error: Any, overrides: Mapping[str, str]) -> str:
    """Say which overrides a rule refuses: those of the part that it belongs to, and of these the ones it names."""
    part = ".".join(map(str, error["loc"]))
    below = [path for path in overrides if not part or path == part or path.startswith(f"{part}.")]
    rule = error["msg"].removeprefix("Value error, ")
    words = set(re.findall(r"\w+", rule))
    named = [path for path in below if path.rpartition(".")[2] in words] or below or list(overrides)
    several = "Overrides" if len(named) > 1 else "Override"
    given = ", ".join(f"{path!r} = {overrides[path]!r}" for path in named)
    return f"{several} {given} {'are' if len(named) > 1 else 'is'} refused: {rule}"
