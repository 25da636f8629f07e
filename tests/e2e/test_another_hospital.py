"""A folder that is nothing like MIMIC, through the command line, from waveforms and one long table to estimates.

Parquet waveforms at 62.5 Hz in whole numbers, identifiers with letters, times on another clock, columns, codes and
units of the hospital's own.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.cohort.splits import Splits
from pipeline.foundation.schema import LAB_NAMES

RATE_HZ = 62.5
HOURS = 1.5
START = pd.Timestamp("2031-03-01T08:00:00")
CLOCK_AHEAD = pd.Timedelta(hours=4)
"""The laboratory's clock shows more than the monitors'."""
CALCIUM_MG_PER_MMOL = 4.008
TESTS = {"K+": 4.1, "CA TOTAL": 2.2, "NA+": 139.0, "GLUC": 7.0, "LACT": 1.8}
DESCRIPTION = {
    "path": "results.csv.gz",
    "column_map": {
        "patient_id": "mrn", "code": "test", "value": "result", "sampled_at": "drawn", "available_at": "reported",
    },
    "code_map": dict(zip(TESTS, ("potassium", "calcium", "sodium", "glucose", "lactate"), strict=True)),
    "units": {"potassium": "mmol/L", "calcium": "mmol/L", "sodium": "mmol/L", "glucose": "mmol/L",
              "lactate": "mmol/L"},
    "time_offset_hours": -4,
    "licence": "this hospital's",
}  # fmt: skip


def write_hospital(folder: Path, patients: list[str]) -> list[str]:
    """Write waveforms and labs, and return the options of the command line that name them."""
    (folder / "monitors").mkdir(parents=True)
    (folder / "laboratory").mkdir()
    waves, results = [], []
    for number, patient in enumerate(patients):
        rng = np.random.default_rng(number)
        start = START + pd.Timedelta(days=number)
        seconds = np.arange(int(HOURS * 3600 * RATE_HZ)) / RATE_HZ
        pulse = 900 * np.sin(2 * np.pi * (1.0 + 0.1 * number) * seconds) + rng.normal(0, 40, len(seconds))
        waves.append({
            "patient_id": patient, "start": start.isoformat(), "sampling_rate_hz": RATE_HZ,
            "samples": pulse.astype(np.int16), "low": -2048.0, "high": 2047.0,
        })  # fmt: skip
        for minutes in range(-240, int(HOURS * 60), 20):
            drawn = start + CLOCK_AHEAD + pd.Timedelta(minutes=minutes)
            results += [
                {"mrn": patient, "test": test, "result": f"{level * rng.normal(1, 0.05):.2f}",
                 "drawn": drawn.isoformat(), "reported": (drawn + pd.Timedelta(minutes=5)).isoformat()}
                for test, level in TESTS.items()
            ]  # fmt: skip
    pd.DataFrame(waves).to_parquet(folder / "monitors" / "ward7.parquet")
    pd.DataFrame(results).to_csv(folder / "laboratory" / "results.csv.gz", index=False)
    (folder / "laboratory" / "uniphy_source.json").write_text(json.dumps(DESCRIPTION))
    return ["--waveforms", str(folder / "monitors"), "--labs", str(folder / "laboratory")]


def run(*arguments: str) -> None:
    assert main([*arguments, "--experiment", "tiny"]) == 0


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    where = [*write_hospital(folder, [f"WARD7-{i:02d}x" for i in range(8)]), "--artifacts", str(folder)]
    for stage in ("catalog", "embed", "labs", "split", "normalize", "align"):
        run(stage, *where)
    run("train", "--method", "mt_pcs", *where, "--set", 'methods=["mt_pcs"]')
    for stage in ("score", "evaluate"):
        run(stage, *where, "--set", 'methods=["mt_pcs"]')
    return folder


def test_labs_are_on_the_monitors_clock_and_in_our_units(hospital: Path) -> None:
    written = pd.read_csv(hospital / "laboratory" / "results.csv.gz")
    written = written[written["test"] == "CA TOTAL"].sort_values(["mrn", "drawn"])
    labs = pd.read_parquet(hospital / "tiny" / "lab_events.parquet")
    assert set(labs["lab"]) == set(LAB_NAMES)
    calcium = labs[labs["lab"] == "calcium"].sort_values(["patient_id", "sampled_at_us"])
    assert calcium["value"].to_numpy() == pytest.approx(written["result"] * CALCIUM_MG_PER_MMOL, rel=1e-3)
    drawn = pd.to_datetime(written["drawn"]) - CLOCK_AHEAD
    assert (
        calcium["sampled_at_us"].to_numpy() == drawn.to_numpy().astype("datetime64[us]").astype(int)
    ).all()
    assert (calcium["available_at_us"] - calcium["sampled_at_us"] == 5 * 60 * 10**6).all()


def test_draws_of_test_patients_are_estimated_and_judged(hospital: Path) -> None:
    table = pd.read_parquet(hospital / "tiny" / "predictions" / "mt_pcs-seed0.parquet")
    test = table[table["split"] == "test"]
    assert set(test["lab"]) == set(LAB_NAMES)
    assert set(test["patient"]) == set(Splits.load(hospital / "tiny" / "splits.json").patients("test"))
    truth = test.loc[test["lab"] == "glucose", "truth"]
    assert truth.between(90, 160).all()  # 7 mmol/L in mg/dL
    assert test["estimate"].notna().all()
    scores = pd.read_parquet(hospital / "tiny" / "evaluation.parquet")
    assert set(scores["method"]) >= {"locf", "mt_pcs"}


def test_new_patients_are_estimated_every_30_seconds(hospital: Path, tmp_path: Path) -> None:
    where = write_hospital(tmp_path / "later", ["NEW-1", "NEW-2"])
    checkpoint = str(hospital / "tiny" / "checkpoints" / "mt_pcs" / "seed0")
    out = tmp_path / "estimates.parquet"
    run(
        "predict", *where, "--artifacts", str(tmp_path / "new"), "--checkpoint", checkpoint, "--out", str(out)
    )
    table = pd.read_parquet(out)
    assert set(table["patient"]) == {"NEW-1", "NEW-2"}
    series = table.groupby(["patient", "lab"])
    assert len(series) == 2 * len(LAB_NAMES)
    for _, rows in series:
        assert set(rows["window_end"].diff().dropna()) == {pd.Timedelta(seconds=30)}
        judged = rows[rows["state"] == "ok"]
        assert len(judged) >= HOURS * 120 - 60  # all but the half hour of warming up
        assert judged["estimate"].notna().all()
        assert judged["hours_since_last_lab"].between(0, 0.5).all()
