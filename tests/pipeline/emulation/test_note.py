"""The emulator's command refuses a place before it fits, and its file says what made it."""

from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.emulation import check, fit, rendered
from pipeline.emulation.check import ReadoutRow
from pipeline.emulation.model import TENSORS_FILE
from pipeline.testing.emulators import handmade_emulator
from pipeline.testing.notes import lacking, tensors_note


def test_a_fitted_emulator_carries_its_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ReadoutRow(
        target="notch",
        window_rendered=0.5,
        window_emulated=0.5,
        mean_rendered=0.5,
        mean_emulated=0.5,
        across=0.5,
    )
    monkeypatch.setattr(rendered, "render_windows", lambda *rest, **named: [])
    monkeypatch.setattr(fit, "fit_emulator", lambda windows, key: handmade_emulator(key=key))
    monkeypatch.setattr(check, "compare_readouts", lambda windows, emulator: [row])
    assert main(["emulator", "--experiment", "tiny", "--artifacts", str(tmp_path)]) == 0
    assert lacking(tmp_path) == {}
    (file,) = tmp_path.rglob(TENSORS_FILE)
    assert tensors_note(file)["stage"] == "emulator"
