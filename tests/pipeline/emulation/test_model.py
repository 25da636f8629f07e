"""The emulator: its draws have the law that it holds, its file is refused where it does not fit."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.emulation.model import RECORD_FILE, TENSORS_FILE, Emulator
from pipeline.foundation.errors import CheckpointError, MissingArtifactError
from pipeline.testing.emulators import HANDMADE_KEY, handmade_emulator


def residuals(emulator: Emulator, records: int, steps: np.ndarray) -> np.ndarray:
    """Draws of many records at the same inputs, less their mean."""
    rng = np.random.default_rng(1)
    inputs = np.full((len(steps), 8), 0.4, np.float32)
    draws = np.stack([emulator.draw(inputs, steps, rng) for _ in range(records)])
    return draws - emulator.mean(inputs)


def test_a_saved_emulator_draws_the_same_numbers(tmp_path: Path) -> None:
    emulator = handmade_emulator()
    emulator.save(tmp_path, {"patients": 3})
    again = Emulator.load(tmp_path, HANDMADE_KEY)
    inputs, steps = np.random.default_rng(0).random((50, 8)).astype(np.float32), np.arange(50)
    one, other = (e.draw(inputs, steps, np.random.default_rng(5)) for e in (emulator, again))
    np.testing.assert_array_equal(one, other)
    assert again.identity == emulator.identity
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([RECORD_FILE, TENSORS_FILE])


def test_covariance_over_dimensions_and_over_time_is_what_was_given() -> None:
    emulator = handmade_emulator()
    steps = np.array([0, 1, 40, 120])
    drawn = residuals(emulator, 20_000, steps).astype(np.float64)
    fresh, lasting = emulator.fresh.T @ emulator.fresh, emulator.lasting
    for place, gap in enumerate(steps):
        decay = np.exp(-gap / emulator.time_constant_steps)
        kept = emulator.constant + (1 - emulator.constant) * decay
        expected = (lasting.T * kept) @ lasting + (fresh if gap == 0 else 0)
        found = drawn[:, 0].T @ drawn[:, place] / len(drawn)
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(fresh + lasting.T @ lasting).max())


def test_what_lasts_goes_on_through_a_gap() -> None:
    """The windows left out of a record change nothing of the law of the others: steps count, not places."""
    emulator = dataclasses.replace(handmade_emulator(), fresh=np.zeros((6, 6), np.float32))
    near, far = (residuals(emulator, 4000, np.array([0, gap]))[:, :, 0] for gap in (1, 400))
    assert np.corrcoef(near.T)[0, 1] > 0.95
    assert np.corrcoef(far.T)[0, 1] < np.corrcoef(near.T)[0, 1] - 0.1


def test_an_emulator_of_another_encoder_is_refused(tmp_path: Path) -> None:
    handmade_emulator().save(tmp_path)
    other = dataclasses.replace(HANDMADE_KEY, weights_hash="f" * 64, readout="mean")
    with pytest.raises(
        CheckpointError, match=r"weights_hash is 0{12}, wanted f{12}; readout is last, wanted mean"
    ):
        Emulator.load(tmp_path, other)


def test_a_missing_or_damaged_emulator_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="python -m pipeline emulator"):
        Emulator.load(tmp_path)
    handmade_emulator().save(tmp_path)
    tensors = tmp_path / TENSORS_FILE
    tensors.write_bytes(tensors.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="sha256 differs"):
        Emulator.load(tmp_path)
    tensors.unlink()
    with pytest.raises(CheckpointError, match=r"no readable emulator\.safetensors: fit the emulator again"):
        Emulator.load(tmp_path)
    record = json.loads((tmp_path / RECORD_FILE).read_text())
    (tmp_path / RECORD_FILE).write_text(json.dumps(record | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99"):
        Emulator.load(tmp_path)
    (tmp_path / RECORD_FILE).write_text("not JSON")
    with pytest.raises(CheckpointError, match="no emulator's record"):
        Emulator.load(tmp_path)


def test_emulated_embeddings_are_told_from_the_encoders_own() -> None:
    key = HANDMADE_KEY.store_key("abc")
    assert key.encoder_name == "emulated:handmade"
    assert (key.weights_hash, key.readout) == (HANDMADE_KEY.weights_hash, "last")
