"""The probe finds a planted rate, tells patients apart, and what is committed says that pretraining paid."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.__main__ import main
from pipeline.embedding import encoders
from pipeline.embedding.encoders import make_encoder
from pipeline.experiments import EXPERIMENTS
from pipeline.foundation.errors import RecordError
from pipeline.foundation.schema import WINDOW_SECONDS
from pipeline.pretraining.data import SYNTHETIC_SEED
from pipeline.pretraining.probe_data import (
    SYNTHETIC_PROBE_SEED,
    ProbeWindows,
    bidmc_windows,
    synthetic_windows,
)
from pipeline.pretraining.probing import (
    error_with_interval,
    held_out_estimates,
    mean_estimates,
    probe,
    probe_table,
)


def planted(rng: np.random.Generator, width: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of 30 patients with 8 windows each, in which a heart rate is hidden."""
    patients = np.repeat(np.arange(30), 8)
    rate = 80 + 12 * rng.standard_normal(30)[patients] + 3 * rng.standard_normal(240)
    features = rng.standard_normal((240, width))
    features += np.outer(rate - 80, rng.standard_normal(width)) / 3
    return features, rate, patients


def test_planted_rate_is_recovered_on_unseen_patients() -> None:
    features, rate, patients = planted(np.random.default_rng(0))
    error = np.abs(held_out_estimates(features, rate, patients) - rate).mean()
    assert error < 2
    assert error < 0.25 * np.abs(mean_estimates(rate, patients) - rate).mean()


def test_noise_is_no_better_than_the_mean() -> None:
    rng = np.random.default_rng(1)
    _, rate, patients = planted(rng)
    noise = np.abs(held_out_estimates(rng.standard_normal((240, 12)), rate, patients) - rate).mean()
    assert noise > 0.9 * np.abs(mean_estimates(rate, patients) - rate).mean()


def test_no_estimate_knows_its_own_patient() -> None:
    """A feature that names the patient, and a target that is the patient's own: nothing can be learned."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(20), 6)
    level = rng.standard_normal(20)[patients]
    estimates = held_out_estimates(np.eye(20)[patients], level, patients)
    assert np.abs(estimates - level).mean() > 0.5
    changed = level.copy()
    changed[patients == 3] += 100
    after = held_out_estimates(np.eye(20)[patients], changed, patients)
    assert np.array_equal(after[patients == 3], estimates[patients == 3])


def test_interval_is_by_patient() -> None:
    errors = np.repeat([1.0, 3.0, 1.0, 3.0], 50)
    mae, low, high = error_with_interval(errors, np.repeat(np.arange(4), 50))
    assert mae == 2
    assert (low, high) == (1, 3)  # four patients: far wider than 200 windows would have it


def pulse(heart: float, breath: float, seconds: int = WINDOW_SECONDS, rate: int = 125) -> np.ndarray:
    time = np.arange(seconds * rate) / rate
    return (np.sin(2 * np.pi * heart / 60 * time) + 0.3 * np.sin(2 * np.pi * breath / 60 * time)).astype(
        np.float32
    )


def test_spectral_peaks_find_a_pure_pulse() -> None:
    data = ProbeWindows(
        samples=np.stack([pulse(72, 15), pulse(110, 24)]), sampling_rate_hz=125.0, exclusions={},
        patients=np.array([0, 1]), targets={},
    )  # fmt: skip
    peaks = data.spectral_peaks()
    assert peaks["heart_rate"] == pytest.approx([72, 110], abs=2)
    assert peaks["respiration_rate"] == pytest.approx([15, 24], abs=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six BIDMC-like recordings of three patients, two minutes each."""
    rng = np.random.default_rng(3)
    for number in range(6):
        heart = 60 + 10 * number
        signal = pulse(heart, 18, seconds=120) + 0.05 * rng.standard_normal(15_000).astype(np.float32)
        time = np.arange(15_000) / 125
        stem = tmp_path / f"bidmc_{number:02d}"
        pd.DataFrame({"Time [s]": time, " PLETH": signal}).to_csv(f"{stem}_Signals.csv", index=False)
        numerics = pd.DataFrame({"Time [s]": np.arange(121), " HR": float(heart), " RESP": 18.0})
        if number == 0:
            numerics.loc[30:59, " RESP"] = np.nan
        numerics.to_csv(f"{stem}_Numerics.csv", index=False)
        Path(f"{stem}_Fix.txt").write_text(f"Age: 60\nMIMIC II matched wdb ID: s{number // 2:05d}\n")
    return tmp_path


def test_windows_carry_the_monitors_rates(folder: Path) -> None:
    data = bidmc_windows(folder)
    assert data.samples.shape == (24, 3750)
    assert np.bincount(data.patients).tolist() == [8, 8, 8]
    assert data.targets["heart_rate"][[0, 4, 23]].tolist() == [60, 70, 110]
    assert np.isnan(data.targets["respiration_rate"]).nonzero()[0].tolist() == [1]


def test_rows_of_the_probe(folder: Path) -> None:
    torch.set_num_threads(1)
    rows = probe(bidmc_windows(folder), [make_encoder("ppg_gpt_1m_random", device="cpu")], folds=3)
    methods = {row["method"] for row in rows if row["target"] == "heart_rate"}
    alone = {"ppg_gpt_1m_random", "ppg_gpt_1m_random (mean of positions)", "spectral_peak", "training_mean"}
    assert methods == alone | {f"ppg_gpt_1m_random minus {name}" for name in alone - {"ppg_gpt_1m_random"}}
    by_method = {row["method"]: row for row in rows if row["target"] == "heart_rate"}
    assert by_method["spectral_peak"]["mae"] < 1.5
    assert by_method["spectral_peak"]["patients"] == 3
    assert "spectral_peak" in probe_table(rows)


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    command = ["probe", "--bidmc", str(folder), "--encoder", "ppg_gpt_1m_random", "--out", str(out)]
    assert main(command) == 0
    assert "training_mean" in capsys.readouterr().out
    assert list(json.loads(out.read_text())["encoders"]) == ["ppg_gpt_1m_random"]
    assert main(["pretrain", "--epochs", "0", "--out", str(tmp_path / "run")]) == 1
    assert "epochs = 0" in capsys.readouterr().err


def test_synthetic_windows_carry_the_true_morphology(tmp_path: Path) -> None:
    data = synthetic_windows(tmp_path, patients=3, hours=0.05)
    assert len(data.samples) == len(data.patients) == len(data.targets["rise_time"]) > 8
    found = data.spectral_peaks()["heart_rate"]
    assert np.median(np.abs(found - data.targets["heart_rate"])) < 3
    cohorts = {build().cohort.seed for build in EXPERIMENTS.values()}
    assert SYNTHETIC_PROBE_SEED not in cohorts | {SYNTHETIC_SEED}


def test_folder_without_recordings_or_patients(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="holds no bidmc"):
        bidmc_windows(tmp_path / "empty")
    (folder / "bidmc_00_Fix.txt").write_text("Age: 60\n")
    with pytest.raises(RecordError, match="names no patient"):
        bidmc_windows(folder)


FIGURES = encoders.WEIGHTS / "probe_bidmc.json"


@pytest.mark.skipif(not FIGURES.exists(), reason="no probe figures are committed")
def test_committed_figures_belong_to_the_shipped_weights_and_random_ones_lose() -> None:
    figures = json.loads(FIGURES.read_text())
    for name, weights in figures["encoders"].items():
        assert make_encoder(name, device="cpu").weights_hash == weights
    rows = {row["method"]: row for row in figures["rows"] if row["target"] == "heart_rate"}
    assert rows["ppg_gpt_1m minus ppg_gpt_1m_random"]["high"] < -0.5
    assert rows["ppg_gpt_1m"]["mae"] < 0.5 * rows["training_mean"]["mae"]
    pooled = " (mean of positions)"
    assert rows[f"ppg_gpt_1m{pooled}"]["mae"] < 0.6 * rows[f"ppg_gpt_1m_random{pooled}"]["mae"]


SHARED = Path(__file__).parents[3].parent / "shared"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="../shared is absent")
@pytest.mark.skipif(not FIGURES.exists(), reason="no probe figures are committed")
def test_figures_can_be_reproduced() -> None:
    figures = json.loads(FIGURES.read_text())
    rows = probe(
        bidmc_windows(SHARED / "data" / "bidmc"), [make_encoder(n, device="cpu") for n in figures["encoders"]]
    )
    for row, committed in zip(rows, figures["rows"], strict=True):
        assert row["method"] == committed["method"]
        assert row["mae"] == pytest.approx(committed["mae"], abs=0.02)
