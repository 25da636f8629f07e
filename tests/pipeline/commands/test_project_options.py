"""Options that name experiment, folders and overrides."""

from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.commands.project_options import overrides
from pipeline.foundation.errors import ConfigError


def test_overrides_are_read_by_field() -> None:
    assert overrides(["a.b=1", "c=x=y", "a.b=1"]) == {"a.b": "1", "c": "x=y"}


@pytest.mark.parametrize("item", ["training.epochs", "=3", ""])
def test_an_override_without_field_or_value_is_explained(item: str) -> None:
    with pytest.raises(ConfigError, match="must be FIELD=VALUE"):
        overrides([item])


def test_two_values_for_one_field_are_refused() -> None:
    with pytest.raises(ConfigError, match="gives 'seeds' two values"):
        overrides(["seeds=[0]", "seeds=[1]"])


def test_an_absent_folder_is_named_as_it_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = str(tmp_path / "absent")
    assert main(["catalog", "--waveforms", absent, "--artifacts", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: --waveforms names {absent}")
    monkeypatch.setenv("UNIPHY_LABS", absent)
    assert main(["labs", "--artifacts", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: UNIPHY_LABS names {absent}")
