"""The probe finds a planted rate, tells patients apart, and says in words what no embedding reads."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.__main__ import main
from pipeline.embedding.encoders import make_encoder
from pipeline.embedding.weights_files import WEIGHTS
from pipeline.experiments import EXPERIMENTS
from pipeline.foundation.errors import ConfigError, RecordError
from pipeline.foundation.schema import WINDOW_SECONDS
from pipeline.pretraining.data import SYNTHETIC_PROBE_SEED, SYNTHETIC_SEED
from pipeline.pretraining.probing.linear_readout import (
    estimates_of_others,
    held_out_estimates,
    mean_estimates,
)
from pipeline.pretraining.probing.rows import (
    BASELINE,
    TRAINING_MEAN,
    Interval,
    PlantedSize,
    ProbeRow,
    Score,
    probe,
)
from pipeline.pretraining.probing.text import probe_text, respiration_words
from pipeline.pretraining.probing.windows import (
    ProbeWindows,
    bidmc_windows,
    planted_windows,
)


def planted(rng: np.random.Generator, width: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of 30 patients with 8 windows each, in which a heart rate is hidden."""
    patients = np.repeat(np.arange(30), 8)
    rate = 80 + 12 * rng.standard_normal(30)[patients] + 3 * rng.standard_normal(240)
    features = rng.standard_normal((240, width))
    features += np.outer(rate - 80, rng.standard_normal(width)) / 3
    return features, rate, patients


def held_out(features: np.ndarray, target: np.ndarray, patients: np.ndarray) -> np.ndarray:
    return held_out_estimates(features, target[:, None], patients)[:, 0]


def test_planted_rate_is_recovered_on_unseen_patients() -> None:
    features, rate, patients = planted(np.random.default_rng(0))
    error = np.abs(held_out(features, rate, patients) - rate).mean()
    assert error < 2
    assert error < 0.25 * np.abs(mean_estimates(rate[:, None], patients)[:, 0] - rate).mean()


def test_noise_is_no_better_than_the_mean() -> None:
    rng = np.random.default_rng(1)
    _, rate, patients = planted(rng)
    noise = np.abs(held_out(rng.standard_normal((240, 12)), rate, patients) - rate).mean()
    assert noise > 0.9 * np.abs(mean_estimates(rate[:, None], patients)[:, 0] - rate).mean()


def test_no_estimate_knows_its_own_patient() -> None:
    """A feature that names the patient, and a target that is the patient's own: nothing can be learned."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(20), 6)
    level = rng.standard_normal(20)[patients]
    estimates = held_out(np.eye(20)[patients], level, patients)
    assert np.abs(estimates - level).mean() > 0.5
    changed = level.copy()
    changed[patients == 3] += 100
    after = held_out(np.eye(20)[patients], changed, patients)
    assert np.array_equal(after[patients == 3], estimates[patients == 3])


@pytest.mark.parametrize("width", [12, 300], ids=["more windows than features", "more features than windows"])
def test_several_targets_at_once_are_as_each_by_itself(width: int) -> None:
    rng = np.random.default_rng(4)
    features, rate, patients = planted(rng, width)
    both = np.stack([rate, rng.standard_normal(240)], axis=1)
    ours = patients < 20
    joint = estimates_of_others(features[ours], both[ours], patients[ours], features[~ours])
    for k in range(2):
        alone = estimates_of_others(features[ours], both[ours, k : k + 1], patients[ours], features[~ours])
        assert joint[:, k] == pytest.approx(alone[:, 0], abs=1e-8)
    error, mean = np.abs(joint[:, 0] - rate[~ours]).mean(), np.abs(rate[ours].mean() - rate[~ours]).mean()
    assert error < 0.6 * mean


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


@pytest.fixture
def single_thread() -> None:
    torch.set_num_threads(1)


def test_rows_of_real_patients(folder: Path, single_thread: None) -> None:
    rows = probe(
        [make_encoder("ppg_gpt_1m_random", device="cpu")], planted=None, real=bidmc_windows(folder), folds=3
    )
    by_name = {row.name: row for row in rows}
    assert list(by_name) == [BASELINE, "ppg_gpt_1m_random", "spectral peak", TRAINING_MEAN]
    assert [row.width for row in rows] == [75, 128, 0, 0]
    heart = {name: row.real["heart_rate"] for name, row in by_name.items()}
    assert heart["spectral peak"].mae.value < 1.5
    assert heart[BASELINE].gain is None
    assert heart[TRAINING_MEAN].above_mean is None
    for name in ("ppg_gpt_1m_random", "spectral peak"):
        gain, own = heart[name].gain, heart[name].mae.value
        assert gain is not None
        assert gain.value == pytest.approx(heart[BASELINE].mae.value - own)
        assert gain.low <= gain.value <= gain.high
    assert all(not row.planted for row in rows)
    text = probe_text(rows, real="six recordings")
    assert "spectral peak" in text
    assert "Planted shape" not in text


def test_intervals_are_over_patients() -> None:
    """Four patients with the same windows each: many windows make no patient more."""
    patients = np.repeat(np.arange(8), 30)
    rng = np.random.default_rng(5)
    target = 80 + 10 * rng.standard_normal(8)[patients]
    samples = np.stack([pulse(rate, 15) for rate in target])
    few = ProbeWindows(samples=samples[::10], sampling_rate_hz=125.0, patients=patients[::10], exclusions={},
                       targets={"heart_rate": target[::10]})  # fmt: skip
    many = ProbeWindows(samples=samples, sampling_rate_hz=125.0, patients=patients, exclusions={},
                        targets={"heart_rate": target})  # fmt: skip
    for one, other in zip(
        *(probe([], planted=None, real=data, folds=4) for data in (few, many)), strict=True
    ):
        assert one.real["heart_rate"].mae.low == pytest.approx(other.real["heart_rate"].mae.low, rel=0.1)
        assert one.real["heart_rate"].mae.high == pytest.approx(other.real["heart_rate"].mae.high, rel=0.1)


@pytest.fixture(scope="module")
def rendered() -> ProbeWindows:
    return planted_windows(PlantedSize(fitted=16, judged=8, bursts=2, seed=7).plan)


def test_planted_windows_carry_the_true_shape(rendered: ProbeWindows) -> None:
    assert len(rendered.samples) == len(rendered.patients) == len(rendered.targets["rise_time"]) > 60
    assert len(np.unique(rendered.patients)) == 24
    assert all(0 <= values.min() <= values.max() <= 1 for values in rendered.targets.values())
    found = rendered.spectral_peaks()["heart_rate"]
    assert np.median(np.abs(found - (50 + 80 * rendered.targets["heart_rate"]))) < 3
    assert np.abs(rendered.samples).max() < 1e4, "no rail is left"


def test_rendering_does_not_depend_on_the_workers(rendered: ProbeWindows) -> None:
    again = planted_windows(PlantedSize(fitted=16, judged=8, bursts=2, seed=7).plan, workers=2)
    assert np.array_equal(again.samples, rendered.samples)
    assert np.array_equal(again.patients, rendered.patients)


def test_rows_of_planted_patients(rendered: ProbeWindows, single_thread: None) -> None:
    rows = probe([make_encoder("ppg_gpt_1m_random", device="cpu")], planted=rendered, fitted=16)
    baseline, random = rows
    assert baseline.planted["rise_time"].r2.value > 0.8
    assert random.planted["rise_time"].r2.value < baseline.planted["rise_time"].r2.value
    gain = random.planted["rise_time"].gain
    assert gain is not None
    assert gain.high < 0
    text = probe_text(rows, planted="a few")
    assert "(-)" in text
    assert "made of such features" in text
    assert "Real patients" not in text


def test_the_probes_seed_is_nobodys() -> None:
    cohorts = {build().cohort.seed for build in EXPERIMENTS.values()}
    assert SYNTHETIC_PROBE_SEED not in cohorts | {SYNTHETIC_SEED}
    assert PlantedSize().seed == SYNTHETIC_PROBE_SEED


def test_seeds_that_may_have_been_trained_on_are_refused() -> None:
    for seed in (SYNTHETIC_SEED, SYNTHETIC_PROBE_SEED + 1, -1):
        with pytest.raises(ValueError, match="pretrained on"):
            PlantedSize(seed=seed)


def read(low: float) -> Score:
    number = Interval(2.4, 2.0, 2.8)
    return Score(r2=Interval(0.1, 0.0, 0.2), mae=number, above_mean=Interval(low + 0.1, low, low + 0.2))


def test_words_on_respiration_follow_the_intervals() -> None:
    rows = [
        ProbeRow(name="a", width=3, planted={}, real={"respiration_rate": read(-0.05)}),
        ProbeRow(name="b", width=3, planted={}, real={"respiration_rate": read(-0.01)}),
        ProbeRow(name=TRAINING_MEAN, planted={}, real={"respiration_rate": read(0.0)}),
    ]
    assert "read by none" in respiration_words(rows)
    assert "2.40" in respiration_words(rows)
    rows[1] = ProbeRow(name="b", width=3, planted={}, real={"respiration_rate": read(0.02)})
    assert respiration_words(rows).endswith("from b.")


def test_halves_are_of_patients(folder: Path) -> None:
    rng = np.random.default_rng(6)
    patients = np.repeat(np.arange(20, 29), 3)
    data = ProbeWindows(samples=rng.random((27, 3750)).astype(np.float32), sampling_rate_hz=125.0, exclusions={},
                        patients=patients, targets={"heart_rate": patients.astype(float)})  # fmt: skip
    choose, judge, whole = (data.half(which) for which in ("choose", "judge", "all"))
    assert np.unique(choose.patients).tolist() == [20, 22, 24, 26, 28]
    assert np.unique(judge.patients).tolist() == [21, 23, 25, 27]
    assert judge.targets["heart_rate"].tolist() == judge.patients.tolist()
    assert np.array_equal(whole.samples, data.samples)
    with pytest.raises(ConfigError, match="half = 'judge' holds 1 patients"):
        bidmc_windows(folder).half("judge")
    with pytest.raises(ConfigError, match="must be one of all, choose, judge"):
        data.half("first")


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6, 8):  # four patients
        for file in folder.glob("bidmc_00_*"):
            text = file.read_text().replace("s00000", f"s1{number:04d}")
            (folder / file.name.replace("_00_", f"_{number:02d}_")).write_text(text)
    out = tmp_path / "figures.json"
    command = [
        "probe",
        "--bidmc",
        str(folder),
        "--skip-planted",
        "--encoder",
        "ppg_gpt_1m_random",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "training mean" in printed
    assert "Respiration of real patients is read" in printed
    figures = json.loads(out.read_text())
    assert set(figures["encoders"]) == {"pulse_features", "ppg_gpt_1m_random"}
    assert figures["rows"][1]["real"]["heart_rate"]["mae"]["value"] > 0
    assert figures["rows"][1]["real"]["respiration_rate"]["r2"]["value"] is None, "it is 18 a minute always"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--encoder", "ppg_gpt_9m"], "there is no encoder 'ppg_gpt_9m'"),
        (["--bidmc", "/nowhere/bidmc"], "/nowhere/bidmc is no folder"),
        (["--half", "choose"], "name them with --bidmc"),
        (["--skip-planted"], "--skip-planted leaves no patients"),
        (["--patients", "2"], "fitted = 2 must be at least"),
        (["--judged", "0"], "judged = 0 must be at least"),
        (["--bursts", "1"], "bursts = 1 must lie in"),
        (["--seed", "20150001"], "may have been pretrained on"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_rendered(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("rendered")

    monkeypatch.setattr("pipeline.pretraining.probing.windows.planted_windows", never)
    assert main(["probe", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_folder_without_recordings_or_patients(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="holds no bidmc"):
        bidmc_windows(tmp_path / "empty")
    (folder / "bidmc_00_Fix.txt").write_text("Age: 60\n")
    with pytest.raises(RecordError, match="names no patient"):
        bidmc_windows(folder)


FIGURES = WEIGHTS / "probe.json"
SHARED = Path(__file__).parents[4].parent / "shared"


def test_committed_figures_belong_to_the_shipped_weights_and_random_ones_lose() -> None:
    figures = json.loads(FIGURES.read_text())
    networks = {name: weights for name, weights in figures["encoders"].items() if name != BASELINE}
    for name, weights in networks.items():
        assert make_encoder(name, device="cpu").weights_hash == weights
    rows = {row["name"]: row for row in figures["rows"]}
    heart = {name: row["real"]["heart_rate"]["mae"] for name, row in rows.items()}
    assert heart["ppg_gpt_1m_long+mean"]["high"] < heart["ppg_gpt_1m_random+mean"]["low"]
    assert heart["ppg_gpt_1m_long+mean"]["value"] < 0.5 * heart[TRAINING_MEAN]["value"]
    for target, score in rows["ppg_gpt_1m_long+mean"]["planted"].items():
        assert score["r2"]["value"] > rows["ppg_gpt_1m_random+mean"]["planted"][target]["r2"]["value"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not SHARED.exists(), reason="../shared is absent")
def test_figures_can_be_reproduced() -> None:
    figures = json.loads(FIGURES.read_text())
    networks = [make_encoder(name, device="cpu") for name in figures["encoders"] if name != BASELINE]
    rows = {
        row.name: row for row in probe(networks, planted=None, real=bidmc_windows(SHARED / "data" / "bidmc"))
    }
    for committed in figures["rows"]:
        for target, score in committed["real"].items():
            found = rows[committed["name"]].real[target].mae.value
            assert found == pytest.approx(score["mae"]["value"], abs=0.02), (committed["name"], target)
