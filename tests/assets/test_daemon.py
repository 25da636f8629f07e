"""The real daemon: a recording lands while it runs and is in the store afterwards; only what changed is embedded."""

import gzip
import io
import json
import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

from assets.resources import Project
from pipeline import stages
from pipeline.store.admin import verify_store
from pipeline.store.embeddings import EmbeddingStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class Ward:
    """A landing folder that is filled from a cohort, and the store that follows it."""

    def __init__(self, tmp_path: Path, **cohort: float) -> None:
        sizes = {f"cohort.size.{name}": str(value) for name, value in cohort.items()}
        project = Project(experiment="tiny", overrides=sizes, artifacts=str(tmp_path / "elsewhere"))
        self.elsewhere = project.workspace()
        stages.synthetic_cohort(self.elsewhere, project.config())
        self.patients = sorted((self.elsewhere.cohort / "waveforms").glob("p*/p*"))
        self.landing = tmp_path / "waveforms"
        shutil.copytree(self.elsewhere.cohort / "clinical", tmp_path / "labs")
        self.landing.mkdir()
        self.artifacts = tmp_path / "artifacts"
        self.variables = {
            "UNIPHY_EXPERIMENT": "tiny",
            "UNIPHY_ARTIFACTS": str(self.artifacts),
            "UNIPHY_WAVEFORMS": str(self.landing),
            "UNIPHY_LABS": str(tmp_path / "labs"),
            "UNIPHY_QUIET_SECONDS": "2",
        }

    def folder(self, number: int) -> Path:
        return self.landing / self.patients[number].relative_to(self.elsewhere.cohort / "waveforms")

    def land(self, *numbers: int) -> None:
        for number in numbers:
            shutil.copytree(self.patients[number], self.folder(number))

    def store(self) -> EmbeddingStore:
        return EmbeddingStore.open(self.artifacts / "tiny" / "embeddings")

    def summary(self) -> dict:
        return json.loads((self.artifacts / "tiny" / "summaries" / "ppg_embeddings.json").read_text())[
            "counts"
        ]

    def change(self, number: int) -> None:
        """Alter one sample of one recording."""
        largest = max(self.folder(number).glob("*.dat"), key=lambda path: path.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)


def test_the_store_follows_the_landing_folder(start_server, tmp_path: Path) -> None:
    ward = Ward(tmp_path, n_patients=200, hours_low=0.2, hours_high=0.25)
    ward.land(*range(198))
    server = start_server(**ward.variables)
    server.command("dagster", "sensor", "start", "new_waveforms")

    def settled(runs: int) -> bool:
        found = server.runs()
        return len(found) >= runs and all(run["status"] in ENDED for run in found)

    server.wait_until(lambda: settled(1), "the first run", 600)
    assert server.runs()[0]["status"] == "SUCCESS"
    assert ward.summary()["patients_embedded_now"] == 198

    ward.land(198)  # lands while the daemon runs
    half = ward.folder(199)
    shutil.copytree(ward.patients[199], half)
    data = max(half.glob("*.dat"), key=lambda path: path.stat().st_size)
    whole = data.read_bytes()
    data.write_bytes(whole[:1000])  # half copied
    server.wait_until(lambda: settled(2), "the run for the record that landed", 400)
    assert ward.summary()["patients_embedded_now"] >= 1
    assert str(int(ward.folder(198).name[1:])) in ward.store()
    runs = len(server.runs())
    time.sleep(45)  # more than one tick of the sensor
    assert len(server.runs()) == runs, "a half-copied record asks for nothing"

    data.write_bytes(whole)
    server.wait_until(lambda: settled(runs + 1), "the run for the completed copy", 400)
    assert ward.summary()["patients"] == 200

    ward.change(0)
    ward.change(1)
    server.wait_until(lambda: settled(runs + 2), "the run for two changed patients", 400)
    assert ward.summary()["patients_embedded_now"] == 2
    assert ward.summary()["patients_unchanged"] == 198

    for file in ward.folder(2).iterdir():
        os.utime(file)  # a copy with new times
    server.wait_until(lambda: settled(runs + 3), "the run for the copy", 400)
    assert ward.summary()["patients_embedded_now"] == 0

    shutil.rmtree(ward.folder(3))
    server.wait_until(lambda: settled(runs + 4), "the run for the vanished patient", 400)
    assert ward.summary()["patients_retired"] == 1
    assert sum(entry.retired for entry in ward.store().manifest().values()) == 1
    assert {run["status"] for run in server.runs()} == {"SUCCESS"}


def test_alignment_follows_the_labs(start_server, tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.land(*range(len(ward.patients)))
    server = start_server(**ward.variables)
    for sensor in ("new_waveforms", "new_labs"):
        server.command("dagster", "sensor", "start", sensor)

    def refreshed() -> list[str]:
        """How each ended run of the labs' job ended, the oldest first."""
        ended = [run["status"] for run in server.runs() if run["jobName"] == "refresh_labs"]
        return [status for status in reversed(ended) if status in ENDED]

    server.wait_until(lambda: len(refreshed()) == 1, "labs are read after the first embeddings", 600)
    aligned = ward.artifacts / "tiny" / "aligned" / "examples.parquet"
    before = pd.read_parquet(aligned)
    table = tmp_path / "labs" / "LABEVENTS.csv.gz"
    whole = table.read_bytes()

    table.write_bytes(whole[: len(whole) // 2])  # damaged: a run fails, and the same state is asked for again
    server.wait_until(lambda: refreshed().count("FAILURE") == 2, "the failed state is asked for again", 600)
    pd.testing.assert_frame_equal(pd.read_parquet(aligned), before)

    events = pd.read_csv(table_of(whole), dtype=str)
    first_half = events.iloc[: len(events) // 2]
    first_half.to_csv(table, index=False)
    server.wait_until(lambda: refreshed()[-1] == "SUCCESS" and len(refreshed()) > 3, "labs changed", 600)
    labs = pd.read_parquet(ward.artifacts / "tiny" / "lab_events.parquet")
    assert 0 < len(labs) <= len(first_half)
    assert len(pd.read_parquet(aligned)) < len(before), "alignment follows"
    assert ward.summary()["patients"] == len(ward.patients)


def table_of(compressed: bytes) -> io.StringIO:
    return io.StringIO(gzip.decompress(compressed).decode())


def test_cancelling_and_a_second_run_leave_a_consistent_store(start_server, tmp_path: Path) -> None:
    ward = Ward(tmp_path, n_patients=6, hours_high=40.0, hours_low=36.0)  # long enough to cancel
    ward.land(*range(6))
    server = start_server(**ward.variables)
    launch = ("dagster", "job", "launch", "-j", "re_embed")
    server.command(*launch)
    server.wait_until(lambda: server.runs()[0]["status"] == "STARTED", "the run starts", 240)
    server.command(*launch)  # a second one, at the same time
    first, second = server.runs()[1]["runId"], server.runs()[0]["runId"]
    server.wait_until(
        lambda: (ward.artifacts / "tiny" / "embeddings.staging").exists(), "embedding begins", 240
    )
    answer = server.ask(f'mutation {{ terminateRun(runId: "{first}") {{ __typename }} }}')
    assert answer["terminateRun"]["__typename"] == "TerminateRunSuccess"
    server.wait_until(lambda: all(run["status"] in ENDED for run in server.runs()), "both runs end", 600)
    assert {run["runId"]: run["status"] for run in server.runs()} == {first: "CANCELED", second: "SUCCESS"}
    store = ward.store()
    assert verify_store(store).ok
    assert len(store.manifest()) == 6
    versions = [path for path in (ward.artifacts / "tiny" / "embeddings").glob("*/*/entry.json")]
    assert len(versions) == 6, "nobody was embedded twice"
