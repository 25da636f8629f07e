"""A run of another configuration or cohort is set aside, and the method trains anew."""

from pathlib import Path

import pytest

from pipeline.foundation.errors import ConfigError, OtherRunError
from pipeline.stages.training import _anew_where_inputs_changed


def test_every_outdated_run_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "mt_pcs" / "seed0"

    def train_once(content: str):
        if folder.exists() and (folder / "run").read_text() != content:
            raise OtherRunError("holds a run of another configuration")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run").write_text(content)
        return content

    for content in ("first", "first", "second", "third", "fourth"):
        assert _anew_where_inputs_changed(folder, lambda content=content: train_once(content)) == content
    assert (folder / "run").read_text() == "fourth"
    kept = {path.parent.name: path.read_text() for path in (folder.parent / "previous").glob("*/run")}
    assert kept == {"seed0": "third", "seed0.1": "first", "seed0.2": "second"}


def test_other_mistakes_are_not_mended_by_training_anew(tmp_path: Path) -> None:
    def refuse():
        raise ConfigError("epochs is -1")

    with pytest.raises(ConfigError, match="epochs"):
        _anew_where_inputs_changed(tmp_path, refuse)
    assert tmp_path.exists()
