"""Planted waveforms for real labs: the latent of each lab follows the patient's interpolated real results.

No synthetic wave belongs to a real patient: whoever shows such a run says so.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import DAY_US, HOUR_US, LABS, MINUTE_US
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import (
    HISTORY_US,
    Course,
    Stay,
    draw_offsets,
    own_processes,
    random_stream,
    shared_processes,
    to_score,
)  # fmt: skip


def real_table_files(folder: Path) -> dict[str, Path]:
    """Find the four MIMIC-III tables in `folder`.

    Raises
    ------
    ConfigError
        When one is absent.
    """
    found = {}
    for name in ("LABEVENTS", "ADMISSIONS", "ICUSTAYS", "PATIENTS"):
        paths = [
            folder / f"{name}{end}" for end in (".csv.gz", ".csv") if (folder / f"{name}{end}").is_file()
        ]
        if not paths:
            raise ConfigError(
                f"{folder} holds no {name}.csv or {name}.csv.gz: real labs need MIMIC-III's four tables"
            )
        found[name] = paths[0]
    return found


def content_hash(folder: Path) -> str:
    """Hash the real tables' bytes."""
    digest = hashlib.sha256()
    for path in real_table_files(folder).values():
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _with_times(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Add int64 microseconds for each text column; rows whose time cannot be read are left out."""
    frame = frame.copy()
    for source, target in columns.items():
        frame[target] = pd.to_datetime(frame[source], format="%Y-%m-%d %H:%M:%S", errors="coerce")
    frame = frame.dropna(subset=list(columns.values()))
    return frame.astype(dict.fromkeys(columns.values(), "datetime64[us]")).astype(
        dict.fromkeys(columns.values(), "int64")
    )


class RealLabs:
    """The real labs and ICU stays of a folder of MIMIC-III tables.

    Attributes
    ----------
    stays : one row a subject: its first ICU stay of at least `least_hours`, in order of subject
    """

    def __init__(self, folder: Path, least_hours: float) -> None:
        files = real_table_files(folder)
        self.stays = self._eligible(files["ICUSTAYS"], files["ADMISSIONS"], least_hours)
        self._labs = self._read_labs(files["LABEVENTS"])

    @staticmethod
    def _eligible(icu_file: Path, admission_file: Path, least_hours: float) -> pd.DataFrame:
        icu = pd.read_csv(icu_file).rename(columns=str.lower)
        admissions = pd.read_csv(admission_file).rename(columns=str.lower)
        icu = icu.merge(admissions.filter(["hadm_id", "admittime", "dischtime"]), on="hadm_id")
        times = {
            "intime": "into_us",
            "outtime": "out_us",
            "admittime": "admitted_us",
            "dischtime": "discharged_us",
        }
        icu = _with_times(icu, times)
        long = icu.loc[icu["out_us"] - icu["into_us"] >= (least_hours + 1) * HOUR_US]
        ordered = long.sort_values(by=["subject_id", "into_us"])
        return ordered.drop_duplicates("subject_id").reset_index(drop=True)

    @staticmethod
    def _read_labs(file: Path) -> pd.DataFrame:
        wanted = {"subject_id", "itemid", "charttime", "valuenum"}
        frame = pd.read_csv(file, usecols=lambda c: c.lower() in wanted).rename(columns=str.lower)
        parts = []
        for lab in LABS:
            usable = (frame["itemid"] == lab.itemid) & frame["valuenum"].between(lab.low, lab.high)
            parts.append(frame.loc[usable].assign(lab=lab.name))
        keys = ["subject_id", "lab", "sampled_at_us"]
        labs = _with_times(pd.concat(parts), {"charttime": "sampled_at_us"})
        return labs.groupby(keys, as_index=False).agg({"valuenum": "median"})

    def stay(self, patient: int, most_hours: float, seed: int) -> Stay:
        """Give the stay of the patient at place `patient`; recording starts within an hour of the ICU."""
        row = self.stays.iloc[patient]
        rng = random_stream(seed, patient, "stay")
        start_us = int(row["into_us"]) + int(rng.integers(60)) * MINUTE_US
        end_us = min(int(row["out_us"]), start_us + int(most_hours * HOUR_US))
        end_us -= (end_us - start_us) % 1_000_000
        return Stay(
            subject_id=int(row["subject_id"]),
            admission_id=int(row["hadm_id"]),
            admitted_us=int(row["admitted_us"]),
            discharged_us=int(row["discharged_us"]),
            recordings=((start_us, end_us),),
        )

    def course(
        self, parameters: CohortParameters, stay: Stay, *, coupling: float, seed: int, patient: int
    ) -> Course:
        """Give latents that follow this patient's real labs with the given coupling, and the real draws."""
        (start_us, end_us), step_us = stay.recordings[0], int(parameters.latent_step_minutes * MINUTE_US)
        grid = np.arange(start_us - HISTORY_US, end_us + DAY_US, step_us)
        rng = random_stream(seed, patient, "latents")
        latents = own_processes(parameters, grid.size, rng)
        scores = np.full_like(latents, np.nan)
        near = self._labs["sampled_at_us"].between(grid[0], grid[-1])
        labs = self._labs.loc[near & (self._labs["subject_id"] == stay.subject_id)]
        parts = []
        for row, (lab, process) in enumerate(parameters.labs.items()):
            draws = labs.loc[labs["lab"] == lab].sort_values("sampled_at_us")
            at, value = draws["sampled_at_us"].to_numpy(), draws["valuenum"].to_numpy()
            score = np.clip(to_score(process, value), -4, 4)
            if at.size:
                scores[row] = np.interp(grid, at, score)
                latents[row] = coupling * scores[row] + np.sqrt(1 - coupling**2) * latents[row]
            parts.append(
                pd.DataFrame(
                    {"lab": lab, "sampled_at_us": at, "score": score, "value": value, "measured": value,
                     "latent": np.interp(at, grid, latents[row])}
                )
            )  # fmt: skip
        return Course(
            grid_us=grid,
            latents=np.concatenate([latents, shared_processes(parameters, grid.size, rng)]),
            offsets=draw_offsets(parameters, None, random_stream(seed, patient, "offsets")),
            lab_scores=scores,
            draws=pd.concat(parts, ignore_index=True),
        )
