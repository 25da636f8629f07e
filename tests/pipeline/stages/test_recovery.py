"""Both nulls on a handful of patients: nothing planted, nothing found. The real run is in docs/recovery.md."""

import pandas as pd
import pytest

from pipeline.evaluation.recovery import CONDITIONS
from pipeline.experiments import experiment
from pipeline.report.recovery_text import recovery_text, verdicts
from pipeline.stages.recovery import run_recovery
from pipeline.testing.notes import lacking, noted_files

SMALL = {
    "encoder": "ppg_gpt_1m_random",
    "cohort.size.n_patients": "20", "cohort.size.hours_low": "1.5", "cohort.size.hours_high": "2.5",
    "splits.fractions": "[0.5, 0.2, 0.3]", "model.d_model": "8", "model.n_blocks": "1", "model.d_state": "2",
    "model.trunk_width": "8", "model.hidden": "8", "training.epochs": "2", "training.learning_rate": "0.005",
    "evaluation.bootstrap": "200", "evaluation.level": "0.99",  # twenty intervals, each of which may err
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("recovery")
    nulls = [c for c in CONDITIONS if c.null]
    config = experiment("recovery", SMALL)
    return config, root, nulls, run_recovery(config, root, nulls)


def test_nulls_hold(run):
    *_, table = run
    assert set(table["condition"]) == {"coupling 0 (null A)", "null B"}
    assert set(table["protocol"]) == {"start", "anchored"}
    for name in ("r2_mt_pcs", "r2_mt_pcs_twin", "r2_lstm", "r2_oracle", "added", "r2_lines", "r2_mt_assim"):
        assert table[name].notna().any(), name
    # So few draws give no line, hence no reading: filters and their twin are the same, and nothing is compared.
    assert table["added_assim"].isna().all()
    judged = verdicts(table)
    assert len(judged) == 6
    for verdict in judged:  # a handful of patients leaves labs without a bound, and then nothing is met
        found, _, unknown = verdict.text.partition("; not estimable for ")
        assert found.endswith("for none"), recovery_text(table)
        assert verdict.met == (not unknown)


def test_the_result_is_on_disk_and_a_second_run_trains_nothing(run):
    config, root, nulls, table = run
    assert pd.read_parquet(root / "recovery.parquet").equals(table)
    assert (root / "recovery.txt").read_text() == recovery_text(table)
    before = {path: path.stat().st_mtime_ns for path in (root / "conditions").rglob("*") if path.is_file()}
    assert before
    assert run_recovery(config, root, nulls).equals(table)
    assert {p: p.stat().st_mtime_ns for p in (root / "conditions").rglob("*") if p.is_file()} == before


def test_every_file_carries_its_note(run):
    _, root, *_ = run
    assert len(noted_files(root)) > 15
    assert lacking(root) == {}
