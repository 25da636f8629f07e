"""Fixtures shared by the tests of evaluation and report."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.schema import HOUR_US, LAB_NAMES, PREDICTION_COLUMNS, WINDOW_US
from pipeline.testing.cohort import CENTRES, SPREADS

# Share of the way from last lab to truth that a method sees, and its noise in units of the lab's spread.
QUALITY = {
    "locf": (0.0, 0.0), "shrunk_locf": (0.1, 0.02), "decayed_locf": (0.05, 0.05), "patient_mean": (0.1, 0.3),
    "training_mean": (0.0, 0.8), "live_locf": (0.15, 0.0), "lstm": (0.0, 0.8), "mt": (0.0, 0.7),
    "st_pcs": (0.3, 0.15), "mt_pcs": (0.4, 0.1), "mt_pcs_twin": (0.15, 0.1), "lines": (0.35, 0.15),
    "mt_assim": (0.45, 0.1), "mt_assim_twin": (0.2, 0.1), "mt_assim_lines": (0.43, 0.1),
}  # fmt: skip


def random_predictions(
    *,
    n_patients: int = 60,
    seed: int = 0,
    methods: tuple[str, ...] = tuple(QUALITY),
    labs: tuple[str, ...] = LAB_NAMES,
    protocols: tuple[str, ...] = ("start", "anchored"),
    scorings: tuple[str, ...] = ("measured",),
    seeds: tuple[int, ...] = (0,),
    splits: tuple[str, ...] = ("test",),
) -> pd.DataFrame:
    """A predictions table whose methods differ as in a plausible ICU cohort: patient levels, drift, noise."""
    rng = np.random.default_rng(seed)
    draws = pd.concat(
        [_draws_of(rng, number, lab, splits) for number in range(n_patients) for lab in labs],
        ignore_index=True,
    )
    kinds = pd.DataFrame(
        list(itertools.product(methods, protocols, scorings, seeds)),
        columns=["method", "protocol", "scoring", "seed"],
    )
    table = kinds.merge(draws, how="cross")
    share, noise = (table["method"].map(lambda name, k=k: QUALITY[name][k]) for k in (0, 1))
    spread = table["lab"].map(SPREADS)
    guess = table["last_lab"] + share * (table["truth"] - table["last_lab"])
    table["estimate"] = guess + noise * spread * rng.normal(size=len(table))
    return table.assign(lower=np.nan, upper=np.nan)[list(PREDICTION_COLUMNS)]


def _draws_of(rng: np.random.Generator, number: int, lab: str, splits: tuple[str, ...]) -> pd.DataFrame:
    origin = int(rng.integers(4_000_000_000, 6_000_000_000)) * 1_000_000
    n_draws = int(rng.integers(2, 9))
    hours = np.cumsum(rng.gamma(4.0, 1.6, n_draws)) + 1
    sampled = origin + (hours * HOUR_US).astype(np.int64)
    level = rng.normal()
    walk = level + rng.normal(0, 0.7, n_draws + 1)
    return pd.DataFrame(
        {
            "split": splits[number % len(splits)],
            "patient": f"{number:06d}",
            "sequence": f"{number:08x}",
            "lab": lab,
            "sampled_at": sampled.astype("datetime64[us]"),
            "t0": np.datetime64(origin, "us"),
            "prediction_window_end": (sampled - sampled % WINDOW_US).astype("datetime64[us]"),
            "truth": np.round(CENTRES[lab] + SPREADS[lab] * walk[1:], 2).clip(0.2),
            "last_lab": np.round(CENTRES[lab] + SPREADS[lab] * walk[:-1], 2).clip(0.2),
            "hours_since_last_lab": np.diff(hours, prepend=0.0),
        }
    )


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., pd.DataFrame]:
    """The generator of random predictions tables."""
    return random_predictions


@pytest.fixture(scope="session")
def predictions() -> pd.DataFrame:
    """60 test patients, every method, both protocols, measured draws."""
    return random_predictions()


@pytest.fixture(scope="session")
def calibrated_predictions() -> pd.DataFrame:
    """80 patients in turn of split test and calibration."""
    return random_predictions(n_patients=80, splits=("test", "calibration"), seed=1)
