"""The encoder fine-tuned on labs, from the command to a run of its own: nothing of held-out patients comes in."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from pipeline.__main__ import main
from pipeline.cohort.encoder_patients import learned_from
from pipeline.cohort.splits import Splits
from pipeline.embedding.encoders import make_encoder
from pipeline.foundation.artefact_notes import HEADER_KEY
from pipeline.foundation.workspace import Workspace
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.synthetic.wfdb_files import patient_folder
from pipeline.stages import encoder_patients
from pipeline.stages.ingest import COHORT_LICENCE
from pipeline.stages.train_encoder import UNREADABLE
from pipeline.store.embeddings import EmbeddingStore
from pipeline.training.encoder import windows as encoder_windows

COHORT = {
    "cohort.size.n_patients": "12", "cohort.size.hours_low": "5", "cohort.size.hours_high": "6",
    "splits.fractions": "[0.5, 0.3, 0.2]",
}  # fmt: skip
RECIPE = {
    "encoder_training.epochs": "1", "encoder_training.rank": "2", "encoder_training.windows_a_draw": "3",
    "encoder_training.selection": "last", "encoder_training.minutes_before": "240",
    "encoder_training.learning_rate": "0.01",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PPG-GPT small enough for a test."""
    path = tmp_path_factory.mktemp("base") / "small.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PPGGPT(PPGGPTConfig(d_model=8, n_layers=2, n_heads=1, dropout=0.0))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


def run(command: str, artifacts: Path, encoder: str, **changed: str) -> int:
    """Run a sub-command, dots in the names of fields written as two underscores."""
    fields = COHORT | RECIPE | {"encoder": encoder} | {n.replace("__", "."): v for n, v in changed.items()}
    sets = [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]
    return main([*command.split(), "--experiment", "tiny", "--artifacts", str(artifacts), *sets])


def upstream(artifacts: Path, encoder: str, **changed: str) -> None:
    for stage in ("cohort", "catalog", "embed", "labs", "split", "align"):
        assert run(stage, artifacts, encoder, **changed) == 0, stage


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The aligned cohort, and its encoder fine-tuned."""
    artifacts = tmp_path_factory.mktemp("made")
    upstream(artifacts, f"{base}+mean")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.encoder.judging.LEAST_DRAWS", 5)
        patch.setattr("pipeline.training.encoder.run.LEAST_DRAWS", 5)
        assert run("train_encoder", artifacts, f"{base}+mean") == 0
    return Workspace(root=artifacts / "tiny")


@pytest.fixture(autouse=True)
def few_draws_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("judging", "run"):
        monkeypatch.setattr(f"pipeline.training.encoder.{module}.LEAST_DRAWS", 5)


def copied(made: Workspace, to: Path) -> Workspace:
    shutil.copytree(made.root.parent, to)
    return Workspace(root=to / "tiny")


def weights(workspace: Workspace) -> Path:
    return workspace.encoder / "model.safetensors"


def weights_hash(workspace: Workspace) -> str:
    return make_encoder(str(weights(workspace)), device="cpu").weights_hash


def test_the_artefact_is_ordinary_weights_with_note_record_and_no_id(made: Workspace, base: Path) -> None:
    splits, path = Splits.load(made.splits), weights(made)
    with safe_open(path, framework="np") as file:
        note = json.loads(file.metadata()[HEADER_KEY])
    assert note["stage"] == "train_encoder"
    assert note["licences"] == [COHORT_LICENCE]
    record = json.loads((made.encoder / "encoder.json").read_text())
    assert record["weights_hash"] == weights_hash(made) != make_encoder(str(base), device="cpu").weights_hash
    assert (record["base"]["name"], record["readout"]) == ("small.safetensors", "mean")
    assert record["patients"]["train"] <= splits.counts["train"]
    assert sorted(p.name for p in made.encoder.iterdir()) == ["encoder.json", "model.safetensors"]
    (known,) = learned_from(path)
    used = {name: {known.use_of(p) for p in splits.patients(name)} - {None} for name in splits.members}
    assert used == {"train": {"train"}, "validation": {"validation"}, "calibration": set(), "test": set()}
    told = [*made.encoder.iterdir(), made.summary("train_encoder"), made.record("train_encoder")]
    text = b" ".join(p.read_bytes() for p in told).decode(errors="ignore")
    ids = [p for p in splits.patients(*splits.members) if len(p) > 3]  # shorter ones are counts as well
    assert len(ids) > 8
    assert not re.search(rf"(?<![0-9a-f.])(?:{'|'.join(ids)})(?![0-9a-f])", text)


def noise_into(workspace: Workspace, patients: tuple[str, ...]) -> int:
    changed = 0
    for patient in patients:
        for path in (workspace.cohort / "waveforms" / patient_folder(int(patient))).glob("*_0*.dat"):
            raw = np.fromfile(path, np.uint8)
            raw[: len(raw) // 2] = np.random.default_rng(0).integers(60, 200, len(raw) // 2, dtype=np.uint8)
            raw.tofile(path)
            changed += 1
    return changed


def noise_after(workspace: Workspace, patient: str, t_us: int) -> bool:
    """Replace the samples of one patient that lie wholly after t by noise; whether any was."""
    changed = False
    for record in Mimic3Waveforms(workspace.cohort / "waveforms").catalog().records:
        if record.patient_id != patient:
            continue
        position = 0
        lines = [line.split() for line in record.path.read_text().splitlines()[1:] if line and line[0] != "#"]
        for name, length in ((fields[0], int(fields[1])) for fields in lines):
            data = record.path.with_name(f"{name}.dat")
            start_us = record.start_us + round(position * 1e6 / 125)
            position += length
            if name == "~" or length == 0 or not data.exists():
                continue
            raw = np.fromfile(data, np.uint8)
            first = max(0, int(np.ceil(max(0, t_us - start_us) / (length * 8e3) * len(raw) / 12)) * 12 + 12)
            if first < len(raw):
                raw[first:] = np.random.default_rng(0).integers(60, 200, len(raw) - first, dtype=np.uint8)
                raw.tofile(data)
                changed = True
    return changed


def other_labs(workspace: Workspace, patients: tuple[str, ...]) -> int:
    path = next((workspace.cohort / "clinical").glob("LABEVENTS.csv*"))
    table = pd.read_csv(path, dtype=str)
    columns = {name.lower(): name for name in table.columns}
    rows = table[columns["subject_id"]].isin(patients)
    numbers = pd.to_numeric(table.loc[rows, columns["valuenum"]], errors="coerce") * 1.2
    for name in ("value", "valuenum"):
        table.loc[rows, columns[name]] = numbers.round(2).astype(str)
    table.to_csv(path, index=False)
    return int(rows.sum())


@pytest.mark.parametrize(
    "held_out", [("calibration", "test"), ("validation", "calibration", "test"), ("train",)]
)
def test_nothing_of_held_out_patients_reaches_the_weights(
    made: Workspace, base: Path, tmp_path: Path, held_out: tuple[str, ...]
) -> None:
    """With the last epoch kept, that holds for the validation patients as well, who otherwise choose it."""
    copy = copied(made, tmp_path / "copy")
    patients = Splits.load(copy.splits).patients(*held_out)
    assert noise_into(copy, patients) > 0
    assert other_labs(copy, patients) > 0
    shutil.rmtree(copy.encoder)
    for stage in ("catalog", "embed", "labs", "align", "train_encoder"):
        assert run(stage, tmp_path / "copy", f"{base}+mean") == 0, stage
    assert (weights_hash(copy) == weights_hash(made)) == ("train" not in held_out)


def test_a_finished_run_is_left_as_it_is_and_another_recipe_keeps_the_earlier_one(
    made: Workspace, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(made, tmp_path / "copy")
    before = weights(copy).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(
            "pipeline.training.encoder.windows.cached_windows", lambda *_, **__: pytest.fail("decoded again")
        )
        assert run("train_encoder", tmp_path / "copy", f"{base}+mean") == 0
    assert weights(copy).read_bytes() == before
    assert run("train_encoder", tmp_path / "copy", f"{base}+mean", encoder_training__seed="3") == 0
    assert weights_hash(copy) != weights_hash(made)
    assert (copy.root / "previous" / "encoder" / "model.safetensors").read_bytes() == before


@pytest.fixture(scope="module")
def second(made: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of its own that names the weights, up to alignment."""
    artifacts = tmp_path_factory.mktemp("second")
    upstream(artifacts, f"{weights(made)}+mean")
    return Workspace(root=artifacts / "tiny")


def test_a_run_of_its_own_embeds_by_the_named_weights(made: Workspace, second: Workspace) -> None:
    encoding = EmbeddingStore.open(second.store).one_encoding()
    assert encoding is not None
    assert (encoding.weights_hash, encoding.readout) == (weights_hash(made), "mean")
    first = EmbeddingStore.open(made.store).one_encoding()
    assert first is not None
    assert first.weights_hash != encoding.weights_hash
    assert Splits.load(second.splits).hash == Splits.load(made.splits).hash


def test_under_such_weights_a_later_change_leaves_earlier_embeddings_as_they_were(
    made: Workspace, second: Workspace, tmp_path: Path
) -> None:
    """What is estimated from embeddings is held to the same by ``tests/e2e/test_no_leak.py``."""
    copy = copied(second, tmp_path / "copy")
    patient = Splits.load(copy.splits).patients("test")[0]
    before = EmbeddingStore.open(copy.store).read(patient)
    t_us = int(np.median(before.start_us))
    assert noise_after(copy, patient, t_us)
    for stage in ("catalog", "embed"):
        assert run(stage, tmp_path / "copy", f"{weights(made)}+mean") == 0
    after = EmbeddingStore.open(copy.store).read(patient)
    starts, bits = [], []
    for one in (before, after):
        kept = np.asarray(one.start_us) + 30_000_000 <= t_us
        starts.append(np.asarray(one.start_us)[kept].tobytes())
        bits.append(np.asarray(one.embeddings[:])[kept].tobytes())
    assert len(starts[0]) > 8 * 50
    assert (starts[0], bits[0]) == (starts[1], bits[1])
    assert np.asarray(before.embeddings[:]).tobytes() != np.asarray(after.embeddings[:]).tobytes()


def refused(capsys: pytest.CaptureFixture[str], workspace: Workspace) -> None:
    error = capsys.readouterr().err
    assert "was fine-tuned on the labs of " in error
    assert "splits.seed" in error
    told = " ".join(word for word in error.split() if "/" not in word)  # a temporary folder has a number too
    assert not any(patient in told for patient in Splits.load(workspace.splits).patients("train", "test"))


def test_another_division_is_refused_before_anything_is_embedded(
    made: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = f"{weights(made)}+mean"
    for stage in ("cohort", "catalog"):
        assert run(stage, tmp_path, tuned, splits__seed="5") == 0
    capsys.readouterr()
    for stage in ("embed", "split"):
        assert run(stage, tmp_path, tuned, splits__seed="5") == 1, stage
        refused(capsys, made)
    assert not (tmp_path / "tiny" / "embeddings").exists()
    assert not (tmp_path / "tiny" / "splits.json").exists()
    assert run("split", tmp_path, tuned, splits__seed="5", encoder_patients="other_people") == 0


@pytest.mark.parametrize(
    "stage", ["align", "train --method mt_pcs", "score", "evaluate", "report", "train_encoder"]
)
def test_a_division_of_ones_own_is_refused_wherever_it_is_read(
    made: Workspace, second: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    copy = copied(second, tmp_path / "copy")
    members = dict(Splits.load(copy.splits).members)
    members["train"], members["test"] = members["test"], members["train"]
    content = {"patients": {name: list(ids) for name, ids in members.items()}}
    copy.splits.write_text(json.dumps(content))
    capsys.readouterr()
    assert run(stage, tmp_path / "copy", f"{weights(made)}+mean") == 1
    refused(capsys, made)


@pytest.mark.parametrize(
    ("encoder", "changed", "message"),
    [
        (
            "ppg_gpt_1m_random+mean",
            {"encoder_training__rank": "129"},
            "rank is 129, .* 128 wide: choose 1 to 128",
        ),
        (
            "ppg_gpt_1m_random+mean",
            {"encoder_training__adapt": "last_layers", "encoder_training__layers": "6"},
            "layers is 6, .* has 5 layers: choose 1 to 5",
        ),
        ("{base}+mean", {"encoder_training__rank": "0"}, "rank = 0 must be at least 1"),
        ("{base}+mean", {"encoder_training__places": '["head"]'}, "choose one or more of w_q, w_k"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_window_is_decoded(
    made: Workspace,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
    encoder,
    changed,
    message,
) -> None:
    copy = copied(made, tmp_path / "copy")
    encoder = encoder.format(base=base)
    monkeypatch.setattr("pipeline.stages.provenance._fitting_together", lambda *_: _nothing())
    monkeypatch.setattr(encoder_windows, "cached_windows", lambda *_, **__: pytest.fail("decoded"))
    assert run("train_encoder", tmp_path / "copy", encoder, **changed) == 1
    error = capsys.readouterr().err
    assert pd.Series([error]).str.contains(message, regex=True).all(), error
    assert weights_hash(copy) == weights_hash(made)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_patients_without_a_draw_are_refused_before_a_window_is_decoded(
    made: Workspace, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, split: str
) -> None:
    copy = copied(made, tmp_path / "copy")
    path = copy.aligned / "draws.parquet"
    draws = pd.read_parquet(path)
    draws.loc[~draws["patient_id"].isin(Splits.load(copy.splits).patients(split))].to_parquet(path)
    monkeypatch.setattr("pipeline.stages.provenance._fitting_together", lambda *_: _nothing())
    monkeypatch.setattr(encoder_windows, "cached_windows", lambda *_, **__: pytest.fail("decoded"))
    assert run("train_encoder", tmp_path / "copy", f"{base}+mean") == 1
    error = capsys.readouterr().err
    assert (
        f"no lab result of a {split} patient has a usable window that ends at most 240 minutes before it"
        in error
    )


def _nothing():
    from pipeline.stages.provenance import Inputs

    return Inputs(versions={}, ancestors={}, config={}, licences=frozenset())


def test_waveforms_that_are_gone_are_refused_before_work_and_some_are_counted(
    made: Workspace, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copied(made, tmp_path / "copy")
    shutil.rmtree(copy.encoder)
    train = Splits.load(copy.splits).patients("train")
    shutil.rmtree(copy.cohort / "waveforms" / patient_folder(int(train[0])))
    assert run("train_encoder", tmp_path / "copy", f"{base}+mean") == 0
    assert f"1  {UNREADABLE}" in capsys.readouterr().out
    shutil.rmtree(copy.encoder)
    for patient in train[1:]:
        shutil.rmtree(copy.cohort / "waveforms" / patient_folder(int(patient)))
    assert run("train_encoder", tmp_path / "copy", f"{base}+mean") == 1
    assert f"the recordings of all {len(train)} train patients are gone from " in capsys.readouterr().err


def test_several_processes_are_refused(
    made: Workspace, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("train_encoder", made.root.parent, f"{base}+mean") == 1
    assert "torchrun started 2 processes of 'train_encoder'" in capsys.readouterr().err
    assert encoder_patients.weights_licences(base) == []
