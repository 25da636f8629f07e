import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.cohort.alignment_config import AlignmentConfig, authors_alignment
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import (
    canonical_json,
    config_hash,
    from_plain,
    source_commit,
    to_plain,
    versions,
)
from pipeline.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    names: tuple[str, ...] = ("a", "b")
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    parts: tuple[Inner, ...] = ()
    path: Path | None = None


def test_equal_configs_have_equal_hashes_and_any_field_changes_it():
    assert config_hash(Outer()) == config_hash(Outer(inner=Inner(names=("a", "b"))))
    changed = [Outer(inner=Inner(limit=1.0)), Outer(parts=(Inner(),)), Outer(inner=Inner(names=("b", "a")))]
    hashes = {config_hash(config) for config in [Outer(), *changed]}
    assert len(hashes) == 4
    assert canonical_json({"b": 1, "a": (1, 2)}) == '{"a":[1,2],"b":1}'


@pytest.mark.parametrize(
    "config",
    [
        Outer(parts=(Inner(limit=2.5), Inner())),
        AlignmentConfig(),
        authors_alignment(),
        TrainingConfig(seed=3),
    ],
)
def test_a_config_survives_json(config):
    assert from_plain(type(config), json.loads(canonical_json(config))) == config


def test_no_folder_of_the_machine_travels():
    plain = to_plain(Outer(path=Path("/some/where/cohort")))
    assert plain["path"] == "cohort"


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match="nan"):
        config_hash(Outer(inner=Inner(limit=float("nan"))))
    with pytest.raises(ConfigError, match="object"):
        to_plain({"x": object()})


def test_unknown_and_impossible_fields_are_refused():
    with pytest.raises(ConfigError, match=r"no field.*epoch"):
        from_plain(TrainingConfig, {"epoch": 3})
    with pytest.raises(ConfigError, match="epochs = 0"):
        from_plain(TrainingConfig, {"epochs": 0})


def test_versions_name_what_changes_numbers():
    found = versions()
    assert {"python", "torch", "numpy", "scipy"} <= set(found)
    assert "+" not in found["python"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("learning_rate", 0.0), ("warmup_start", 1.0), ("seed", -1), ("protocols", ()),
     ("protocols", ("other",)), ("selection", "best"), ("patience", 0), ("batches_per_epoch", 0), ("clip", -1.0)],
)  # fmt: skip
def test_training_config_names_the_field_it_refuses(name, value):
    with pytest.raises(ValueError, match=name):
        replace(TrainingConfig(), **{name: value})


def test_the_commit_is_a_short_hash_and_says_whether_files_differ_from_it():
    assert re.fullmatch(r"([0-9a-f]{12}( \+ changes)?)?", source_commit())
