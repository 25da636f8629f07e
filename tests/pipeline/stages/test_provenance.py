"""A stage refuses inputs of another configuration, says how to rebuild them, and the command that it prints works."""

import json
import logging
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.__main__ import main
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.splits import Splits
from pipeline.embedding import encoders
from pipeline.experiments import ExperimentConfig, experiment
from pipeline.foundation.artefact_notes import NOTE_KEY, parquet_note
from pipeline.foundation.errors import StaleArtefactError
from pipeline.foundation.schema import QUALITY_COLUMNS
from pipeline.foundation.workspace import Workspace
from pipeline.stages import lab_alignment, provenance, training
from pipeline.stages.encoder_files import shown_encoder
from pipeline.stages.ingest import COHORT_LICENCE
from pipeline.stages.paper_comparison import UPSTREAM
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.notes import READERS, lacking, noted_files

SMALL = {
    "encoder": "ppg_gpt_1m_random", "methods": '["mt_pcs"]', "cohort.size.n_patients": "8",
    "cohort.size.hours_low": "2.5", "cohort.size.hours_high": "3", "splits.fractions": "[0.5, 0.25, 0.25]",
    "model.d_model": "8", "model.n_blocks": "1", "model.d_state": "2", "model.trunk_width": "8",
    "training.fit_lines": "false", "evaluation.bootstrap": "20",
}  # fmt: skip
STAGES = ("cohort", "catalog", "embed", "labs", "split", "normalize", "align", "train", "score", "evaluate")


def run(command: str, artifacts: Path, **changed: str) -> int:
    """Run a sub-command on the small experiment with other fields, dots written as two underscores."""
    fields = SMALL | {name.replace("__", "."): value for name, value in changed.items()}
    sets = [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]
    return main([*command.split(), "--experiment", "tiny", "--artifacts", str(artifacts), *sets])


def config(**changed: str) -> ExperimentConfig:
    return experiment("tiny", SMALL | {name.replace("__", "."): value for name, value in changed.items()})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifacts = tmp_path_factory.mktemp("made")
    assert [run(stage, artifacts) for stage in STAGES] == [0] * len(STAGES)
    return artifacts


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made, tmp_path / "copy")
    return Workspace(root=tmp_path / "copy" / "tiny")


@pytest.fixture
def old(copy: Workspace) -> Workspace:
    """The artefacts as they were before there were records."""
    shutil.rmtree(copy.root / "provenance")
    copy.sources.unlink()
    for path in copy.root.rglob("*.parquet"):
        table = pq.read_table(path)
        kept = {key: value for key, value in (table.schema.metadata or {}).items() if key != NOTE_KEY}
        pq.write_table(table.replace_schema_metadata(kept), path)
    provenance._tell_once.cache_clear()
    return copy


@pytest.mark.parametrize(
    ("command", "field", "value", "artefact", "before"),
    [
        ("train", "splits.seed", "3", "splits.json", "0"),
        ("train", "encoder", "ppg_gpt_1m", "the embedding store", "ppg_gpt_1m_random"),
        ("train", "window.flat_share_limit", "0.5", "the embedding store", "0.9"),
        ("train", "alignment.interpolated_weight", "0.5", "aligned/", "0.002"),
        ("train", "labs.duplicates", "max", "lab_events.parquet", "median"),
        ("normalize", "labs.duplicates", "max", "lab_events.parquet", "median"),
        ("align", "splits.calibration_share", "0.5", "splits.json", "0.3333333333333333"),
        ("embed", "cohort.seed", "4", "cohort/", "0"),
        ("score", "training.epochs", "2", "checkpoints/mt_pcs", "1"),
        ("score", "scaler.clip", "true", "normalization.json", "false"),
        ("evaluate", "seeds", "[0, 1]", "predictions", "[0]"),
        ("report", "evaluation.level", "0.9", "evaluation.parquet", "0.95"),
    ],
)
def test_another_configuration_is_refused_in_one_sentence(
    made: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    field: str,
    value: str,
    artefact: str,
    before: str,
) -> None:
    assert run(command, made, **{field: value}) == 1
    error = capsys.readouterr().err.strip()
    assert (
        f"error: {artefact} was made with {field} = {before}, and this run has {field} = {value}: " in error
    )
    assert "rebuild it with python -m pipeline " in error
    assert error.endswith(f"or go back to {field} = {before}.")


@pytest.mark.parametrize("command", ["table1", "cohort", "all"])
def test_another_cohort_is_refused_with_field_values_and_command(
    made: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(command, made, cohort__seed="9") == 1
    error = capsys.readouterr().err
    assert "error: cohort/ was made with cohort.seed = 0, and this run has cohort.seed = 9: delete " in error
    assert "rebuild it with python -m pipeline cohort --experiment tiny" in error
    assert "--set cohort.seed=9" in error


@pytest.mark.parametrize("command", ["train", "embed", "align"])
def test_an_encoder_that_is_none_is_refused_as_such(
    made: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """And no command is printed that could not work."""
    assert run(command, made, encoder="nonsense") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: there is no encoder 'nonsense': use ppg_gpt_<scale>_random")
    assert "rebuild" not in error


def test_a_gpu_that_is_not_there_is_refused_before_the_cohort_is_read(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(AlignedCohort, "load", lambda *rest: pytest.fail("work began"))
    assert run("train", made, training__device="cuda:99") == 1
    assert 'training.device = "cuda:99"' in capsys.readouterr().err


def test_the_printed_commands_mend_it(copy: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """Each refusal names the next command, until the stage runs."""
    artifacts, typed = copy.root.parent, []
    while run("train", artifacts, splits__seed="3") != 0:
        error = capsys.readouterr().err
        command = re.search(r"python -m pipeline (.*?) \(asset", error)
        assert command is not None, error
        typed.append(command[1].split()[0])
        assert len(typed) < 5
        assert main(shlex.split(command[1])) == 0
    assert typed == ["split", "normalize", "align"]
    stored = json.loads((copy.checkpoint("mt_pcs", 0) / "best" / "config.json").read_text())
    assert stored["experiment"]["splits"]["seed"] == 3
    assert stored["provenance"]["split_hash"] == Splits.load(copy.splits).hash
    assert (copy.root / "checkpoints" / "mt_pcs" / "previous" / "seed0").exists()


def test_fields_that_change_no_number_are_not_compared(made: Path) -> None:
    assert run("evaluate", made, training__device="cpu", training__tensorboard="true", caveat="Mind.") == 0


def refusal(workspace: Workspace, stage: str, **changed: str) -> str:
    with pytest.raises(StaleArtefactError) as caught:
        provenance.check_inputs(workspace, config(**changed), stage)
    return str(caught.value)


def test_an_artefact_that_was_changed_by_hand_is_refused(copy: Workspace) -> None:
    pd.read_parquet(copy.lab_events).iloc[1:].to_parquet(copy.lab_events)
    assert "lab_events.parquet is not what 'lab_events' wrote" in refusal(copy, "lab_alignment")


def test_inputs_of_different_makings_are_refused(copy: Workspace) -> None:
    assert run("split", copy.root.parent, splits__seed="3") == 0
    assert run("split", copy.root.parent) == 0
    provenance.check_inputs(copy, config(), "train_mt_pcs")  # the same division again
    table = json.loads(copy.splits.read_text())["patients"]
    one, other = table["train"][0], table["test"][0]
    swapped = copy.splits.read_text().replace(one, "#").replace(other, one).replace("#", other)
    copy.splits.write_text(json.dumps({"patients": json.loads(swapped)["patients"]}))
    assert "normalization.json was made from another splits.json than is there now" in refusal(
        copy, "train_mt_pcs"
    )


def test_a_division_of_ones_own_stands(copy: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    provenance._tell_once.cache_clear()
    content = json.loads(copy.splits.read_text())
    content["patients"]["test"], content["patients"]["validation"] = (
        content["patients"]["validation"], content["patients"]["test"],
    )  # fmt: skip
    copy.splits.write_text(json.dumps({"patients": content["patients"]}))
    for seed in ("0", "3"):
        provenance.check_inputs(copy, config(splits__seed=seed), "normalization_stats")
    assert caplog.text.count("division of your own") == 1


def embed(workspace: Workspace, patient: str, like: str, value: float) -> None:
    store = EmbeddingStore.open(workspace.store)
    entry = store.manifest()[store.patient_key(like)]
    key = entry.key.for_source(f"{patient}{value}")
    with store.stage(patient, key, width=4) as writer:
        quality = np.full((2, len(QUALITY_COLUMNS)), 0.5, np.float32)
        writer.append(np.arange(2, dtype=np.int64) * 30_000_000, np.full((2, 4), value, np.float32), quality)
        store.commit([writer.finish()])


def test_a_new_patient_leaves_the_rest_valid_and_a_changed_one_does_not(copy: Workspace) -> None:
    known = Splits.load(copy.splits).patients("train")[0]
    embed(copy, "a patient who came tonight", known, 1.0)
    provenance.check_inputs(copy, config(), "train_mt_pcs")
    embed(copy, known, known, 2.0)
    assert "aligned/ was made from other embeddings than is there now" in refusal(copy, "train_mt_pcs")


def test_what_was_made_before_records_is_taken_and_said_so_once(
    old: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        inputs = provenance.check_inputs(old, config(), "train_mt_pcs")
    assert set(inputs.versions) == {"normalization_stats", "cohort_splits", "ppg_embeddings", "lab_alignment"}
    assert caplog.text.count("aligned/ was made before provenance records") == 1


@pytest.mark.parametrize(
    ("stage", "field", "value", "artefact"),
    [
        ("lab_alignment", "splits.seed", "3", "splits.json"),
        ("lab_alignment", "encoder", "ppg_gpt_1m", "the embedding store"),
        ("lab_alignment", "window.flat_share_limit", "0.5", "the embedding store"),
        ("train_mt_pcs", "scaler.clip", "true", "normalization.json"),
        ("train_mt_pcs", "alignment.history.features", "paper", "aligned/"),
        ("predictions", "model.d_model", "16", "checkpoints/mt_pcs"),
        ("predictions", "training.epochs", "2", "checkpoints/mt_pcs"),
        ("waveform_catalog", "cohort.coupling", "0.5", "cohort/"),
    ],
)
def test_what_was_made_before_records_is_refused_where_it_contradicts(
    old: Workspace, stage: str, field: str, value: str, artefact: str
) -> None:
    assert refusal(old, stage, **{field: value}).startswith(f"{artefact} was made with ")


def test_embeddings_made_before_records_are_not_made_again(
    old: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("embed", old.root.parent) == 0
    assert "patients embedded now: 0" in capsys.readouterr().out
    assert old.record("ppg_embeddings").exists()


def test_table1_makes_again_what_differs_and_nothing_else(copy: Workspace) -> None:
    def outdated(**changed: str) -> list[str]:
        chosen = config(**changed)
        return [
            stage.__name__ for stage in UPSTREAM if not provenance.is_current(copy, chosen, stage.__name__)
        ]

    assert outdated() == []
    assert outdated(alignment__interpolated_weight="0.5") == ["lab_alignment"]
    assert outdated(splits__seed="3") == ["cohort_splits", "normalization_stats", "lab_alignment"]
    (copy.aligned / "pieces.parquet").unlink()
    assert outdated() == ["lab_alignment"]


def test_a_checkpoint_does_not_outlive_its_labs_configuration(copy: Workspace) -> None:
    """The labs come out alike, and a training that compared content alone would keep the old configuration."""
    for stage in ("labs", "normalize", "align", "train"):
        assert run(stage, copy.root.parent, labs__dilution_sodium="114") == 0
    stored = json.loads((copy.checkpoint("mt_pcs", 0) / "best" / "config.json").read_text())
    assert stored["experiment"]["labs"]["dilution_sodium"] == 114
    times = {path: path.stat().st_mtime_ns for path in copy.root.rglob("*.safetensors")}
    assert run("train", copy.root.parent, labs__dilution_sodium="114") == 0
    assert {path: path.stat().st_mtime_ns for path in copy.root.rglob("*.safetensors")} == times


def test_a_delayed_table_of_other_models_is_left_out(
    copy: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    assert not provenance.agrees(copy, config(), "result_delay", beside="report")
    with provenance.recording(copy, config(), "result_delay"):
        copy.result_delay.write_bytes(b"table")
    assert provenance.agrees(copy, config(), "result_delay", beside="report")
    assert run("train", copy.root.parent, training__epochs="2") == 0
    assert run("score", copy.root.parent, training__epochs="2") == 0
    assert run("evaluate", copy.root.parent, training__epochs="2") == 0
    assert not provenance.agrees(copy, config(training__epochs="2"), "result_delay", beside="report")
    assert "result_delay.parquet is left out" in caplog.text


@pytest.mark.parametrize(("gone", "stage", "artefact", "command"), [
    ("lab_events", "lab_alignment", "lab_events.parquet", "labs"),
    ("lab_alignment", "train_mt_pcs", "aligned/", "align"),
    ("predictions", "evaluation", "predictions", "score"),
    ("evaluation", "report", "evaluation.parquet", "evaluate"),
])  # fmt: skip
def test_a_table_without_the_record_that_its_stage_writes_last_is_refused(
    copy: Workspace, gone: str, stage: str, artefact: str, command: str
) -> None:
    """Of a killed stage: no one knows its configuration, though the table's note is there."""
    copy.record(gone).unlink()
    told = refusal(copy, stage)
    assert told.startswith(artefact)
    assert f"its stage was interrupted: rebuild it with python -m pipeline {command}" in told


def test_a_stage_that_fails_leaves_no_record(copy: Workspace) -> None:
    copy.record("lab_alignment").unlink()
    with pytest.raises(ZeroDivisionError), provenance.recording(copy, config(), "lab_alignment"):
        _ = 1 / 0
    assert not copy.record("lab_alignment").exists()


def test_one_rank_alone_writes_the_record(copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank of several; a RANK that an earlier launch left in the shell means nothing."""
    for processes, rank, written in (("2", "1", False), ("2", "0", True), ("1", "1", True), ("", "1", True)):
        monkeypatch.setenv("WORLD_SIZE", processes)
        monkeypatch.setenv("RANK", rank)
        copy.record("lab_alignment").unlink(missing_ok=True)
        lab_alignment(copy, config())
        assert copy.record("lab_alignment").exists() == written


def test_an_unknown_method_is_refused_before_any_work(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "require", lambda *arguments, **keywords: pytest.fail("work began"))
    assert run("train --method mtpcs", made) == 1
    assert "choose one of lstm, mt, mt_learned, st_pcs, mt_pcs, mt_pcs_twin" in capsys.readouterr().err


def test_every_parquet_file_and_checkpoint_carries_its_note(made: Path) -> None:
    assert len(noted_files(made)) > 15
    assert lacking(made) == {}
    for path in noted_files(made):
        assert READERS[path.suffix](path)["licences"] == [COHORT_LICENCE], path


def test_a_method_names_its_own_weights_a_baseline_none_and_the_evaluation_all(made: Path) -> None:
    workspace = Workspace(root=made / "tiny")
    stored = json.loads((workspace.checkpoint("mt_pcs", 0) / "best" / "config.json").read_text())
    assert stored["provenance"]["note"]["stage"] == "train_mt_pcs"
    behind = {
        path.stem: parquet_note(path)["checkpoints"] for path in workspace.predictions.glob("*.parquet")
    }
    assert behind.pop("mt_pcs-seed0") == [stored["weights_sha256"]]
    assert len(behind) > 3
    assert not any(behind.values())
    assert parquet_note(workspace.evaluation)["checkpoints"] == [stored["weights_sha256"]]


def test_an_encoder_given_by_path_is_known_by_its_content(copy: Workspace, tmp_path: Path) -> None:
    """No folder of the machine in any artefact; a copy of the file serves, another file under its name does not."""
    file = tmp_path / "mine" / "tuned.safetensors"
    file.parent.mkdir()
    shutil.copy(encoders.WEIGHTS / "ppg_gpt_1m.safetensors", file)
    artifacts = tmp_path / "other"
    shutil.copytree(copy.cohort, artifacts / "tiny" / "cohort")
    for stage in ("catalog", "embed", "labs", "split", "normalize", "align", "train"):
        assert run(stage, artifacts, encoder=str(file)) == 0
    shown = shown_encoder(str(file))
    workspace = Workspace(root=artifacts / "tiny")
    stored = json.loads((workspace.checkpoint("mt_pcs", 0) / "best" / "config.json").read_text())
    assert stored["experiment"]["encoder"] == shown
    assert re.fullmatch(r"tuned\.safetensors@[0-9a-f]{16}", shown)
    written = [path for path in workspace.root.rglob("*.json") if path != workspace.sources]
    assert [path for path in written if str(file.parent) in path.read_text()] == []
    moved = tmp_path / "elsewhere.d" / "tuned.safetensors"
    moved.parent.mkdir()
    file.rename(moved)
    provenance.check_inputs(workspace, config(encoder=str(moved)), "train_mt_pcs")
    provenance.check_inputs(workspace, config(encoder=str(file)), "train_mt_pcs")  # gone: its name must do
    assert provenance.is_current(workspace, config(encoder=str(moved)), "lab_alignment")
    shutil.copy(encoders.WEIGHTS / "ppg_gpt_1m_long.safetensors", moved)
    told = refusal(workspace, "train_mt_pcs", encoder=str(moved))
    assert f"was made with encoder = {shown}, and this run has encoder = tuned.safetensors@" in told


def test_records_form_a_chain_and_name_neither_patients_nor_folders(made: Path) -> None:
    workspace = Workspace(root=made / "tiny")
    records = {path.stem: json.loads(path.read_text()) for path in (workspace.root / "provenance").iterdir()}
    assert len(records) == len(STAGES)
    for record in records.values():
        for name, version in record["inputs"].items():
            if name != "ppg_embeddings":  # whose version is of the patients in the splits, drawn after it
                assert version == records[name]["version"]
    assert set(records["evaluation"]["ancestors"]) == set(records) - {"evaluation"}
    assert records["evaluation"]["config"]["labs.duplicates"] == "median"
    splits = Splits.load(workspace.splits)
    text = json.dumps(records)
    assert str(made) not in text
    assert not [p for p in splits.patients(*splits.members) if re.search(rf'"{p}"', text)]
