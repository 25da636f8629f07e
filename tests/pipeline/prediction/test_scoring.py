from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.cohort.scored_set import scored_sets
from pipeline.cohort.splits import split_subjects
from pipeline.foundation.errors import CheckpointError, LeakError
from pipeline.foundation.schema import LAB_NAMES, PREDICTION_COLUMNS
from pipeline.labs.carry_forward import LOCF
from pipeline.prediction.scoring import score, score_estimator
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.checkpoints import load_model
from pipeline.training.config import TrainingConfig
from pipeline.training.dataset import PieceDataset, pack
from pipeline.training.inference import estimate_piece, estimate_pieces
from pipeline.training.method import train

CONFIG = TrainingConfig(
    epochs=1, batch_pieces=4, learning_rate=1e-2, warmup_epochs=0.0, tensorboard=False, device="cpu"
)
ALL_SPLITS = ("train", "validation", "calibration", "test")


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=10, hours=1.5, draws=4)


def fit(cohort, method, out, config=CONFIG, **model):
    train(
        method,
        cohort.aligned,
        cohort.store,
        cohort.scaler,
        cohort.splits,
        dict(TINY_MODEL) | model,
        config,
        out,
    )
    return out


@pytest.fixture(scope="module")
def checkpoints(cohort, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {m: fit(cohort, m, root / m) for m in ("mt_pcs", "mt_pcs_twin", "st_pcs", "lstm")}


@pytest.mark.parametrize("method", ["mt_pcs", "st_pcs", "lstm"])
def test_every_method_scores_the_same_rows(cohort, checkpoints, method):
    rows = score(checkpoints[method], cohort.aligned, cohort.store, cohort.splits, device="cpu")
    locf = score_estimator("locf", LOCF.estimate, cohort.aligned, cohort.splits)
    assert tuple(rows.columns) == PREDICTION_COLUMNS
    assert set(rows["split"]) <= {"validation", "calibration", "test"}
    assert set(rows["protocol"]) == {"start", "anchored"}
    assert np.isfinite(rows["estimate"]).all()
    assert np.isfinite(locf["estimate"]).all()
    # The evaluation refuses methods that were scored on different draws.
    blocks = scored_sets(pd.concat([rows, locf], ignore_index=True), "test")
    assert {len(block.estimates) for block in blocks} == {2}
    others = [c for c in PREDICTION_COLUMNS if c not in ("method", "estimate")]
    pd.testing.assert_frame_equal(rows[others], locf[others])


def test_measured_rows_are_the_cohorts_examples(cohort, checkpoints):
    rows = score(
        checkpoints["mt_pcs"],
        cohort.aligned,
        cohort.store,
        cohort.splits,
        splits_to_score=ALL_SPLITS,
        device="cpu",
    )
    assert len(rows) == len(cohort.aligned.examples)
    assert rows["truth"].sum() == pytest.approx(cohort.aligned.examples["truth"].sum())
    for patient, part in rows.groupby("patient"):
        assert set(part["split"]) == {cohort.splits.split_of(patient)}
    assert rows["sampled_at"].dtype == np.dtype("datetime64[us]")
    assert (rows["prediction_window_end"] <= rows["sampled_at"]).all()
    assert (rows["t0"] < rows["sampled_at"]).all()


def test_an_estimate_is_the_models_output_at_the_examples_step(cohort, checkpoints):
    """One row worked out by hand: the whole piece in one pass, unscaled."""
    rows = score(checkpoints["mt_pcs"], cohort.aligned, cohort.store, cohort.splits, device="cpu")
    row = rows[(rows["protocol"] == "anchored") & (rows["lab"] == "sodium")].iloc[0]
    examples = cohort.aligned.examples
    example = examples[
        (examples["patient_id"] == row["patient"]) & (examples["lab"] == "sodium")
        & (examples["protocol"] == "anchored") & (examples["truth"] == row["truth"])
    ].iloc[0]  # fmt: skip
    dataset = PieceDataset(cohort.aligned, cohort.store, cohort.scaler, patients=[row["patient"]])
    item = dataset[dataset.piece_ids.index(example["piece_id"])]
    loaded = load_model(checkpoints["mt_pcs"] / "best")
    scaled = loaded.model(pack([item]).inputs).detach().numpy()[int(example["step"])]
    assert row["estimate"] == pytest.approx(
        cohort.scaler.unscale(scaled)[LAB_NAMES.index("sodium")], rel=1e-5
    )


def test_st_pcs_takes_each_lab_from_its_own_model(cohort, checkpoints, tmp_path):
    rows = score(checkpoints["st_pcs"], cohort.aligned, cohort.store, cohort.splits, device="cpu")
    only = score(checkpoints["st_pcs"] / "lactate", cohort.aligned, cohort.store, cohort.splits, device="cpu")
    assert set(rows["lab"]) == set(LAB_NAMES)
    assert set(only["lab"]) == {"lactate"}
    mine = rows[rows["lab"] == "lactate"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, only)


def test_the_twin_sees_another_patient_and_leaves_out_a_split_of_one(cohort, checkpoints):
    rows = score(checkpoints["mt_pcs_twin"], cohort.aligned, cohort.store, cohort.splits, device="cpu")
    sizes = {split: len(cohort.splits.patients(split)) for split in ALL_SPLITS}
    assert sizes["calibration"] == 1
    assert set(rows["split"]) == {split for split in ("validation", "test") if sizes[split] > 1}
    # Its estimates do not depend on the own waveform: exchange one patient's embeddings for noise.
    victim = cohort.splits.patients("test")[0]
    noise = np.random.default_rng(0).normal(size=cohort.store.windows[victim].embeddings.shape)
    changed = replace(cohort.store.windows[victim], embeddings=noise.astype(np.float16))
    other = cohort.with_windows({**cohort.store.windows, victim: changed})
    again = score(checkpoints["mt_pcs_twin"], other.aligned, other.store, cohort.splits, device="cpu")
    mine, theirs = rows["patient"] == victim, rows["patient"] != victim
    assert np.array_equal(rows.loc[mine, "estimate"], again.loc[mine, "estimate"])
    assert not np.array_equal(rows.loc[theirs, "estimate"], again.loc[theirs, "estimate"])


def test_a_split_that_leaks_or_is_another_one_is_refused(cohort, checkpoints):
    others = split_subjects([*cohort.store.windows, "99"])
    with pytest.raises(LeakError, match="another division"):
        score(checkpoints["mt_pcs"], cohort.aligned, cohort.store, others, device="cpu")
    members = dict(cohort.splits.members)
    members["test"] = (*members["test"], members["train"][0])
    with pytest.raises(LeakError, match="more than one split"):
        replace(cohort.splits, members=members)


def test_a_cohort_without_examples_gives_an_empty_table(cohort, checkpoints):
    bare = cohort.with_labs(cohort.labs.iloc[:0])
    rows = score(checkpoints["mt_pcs"], bare.aligned, bare.store, bare.splits, device="cpu")
    assert rows.empty
    assert tuple(rows.columns) == PREDICTION_COLUMNS


def test_a_piece_in_chunks_is_the_piece_in_one_pass(cohort, checkpoints):
    model = load_model(checkpoints["mt_pcs"] / "best").model
    dataset = PieceDataset(
        cohort.aligned, cohort.store, cohort.scaler, patients=cohort.splits.patients("test"), protocol="start"
    )
    items = [dataset[i] for i in range(len(dataset))]
    whole = estimate_pieces(model, items)
    for item, expected in zip(items, whole, strict=True):
        assert estimate_piece(model, pack([item]).inputs) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="alone"):
        estimate_piece(model, pack(items).inputs)


@pytest.mark.parametrize("steps", ["grid", "concatenated"])
def test_the_centred_lstm_and_concatenated_steps_can_be_scored(tmp_path, steps):
    config = AlignmentConfig(steps=steps)
    cohort = tiny_cohort(n_patients=6, hours=1.5, draws=4, config=config)
    folder = fit(cohort, "lstm", tmp_path, replace(CONFIG, lstm_centred=True))
    rows = score(folder, cohort.aligned, cohort.store, cohort.splits, device="cpu")
    assert len(rows)
    assert np.isfinite(rows["estimate"]).all()


def real_store(cohort, root, weights_hash):
    store = EmbeddingStore.open(root, create=True)
    entries = []
    for patient, windows in cohort.store.windows.items():
        key = EmbeddingKey(
            source_hash="s", encoder_name="tiny", weights_hash=weights_hash, preprocessing_version="1"
        )
        with store.stage(patient, key, width=windows.width) as writer:
            writer.append(windows.start_us, windows.embeddings, windows.quality)
            entries.append(writer.finish())
    store.commit(entries)
    return store


def test_the_embedding_store_serves_as_the_memory_does_and_its_encoder_is_checked(cohort, tmp_path):
    store = real_store(cohort, tmp_path / "store", "a" * 64)
    folder = tmp_path / "run"
    train("mt_pcs", cohort.aligned, store, cohort.scaler, cohort.splits, dict(TINY_MODEL), CONFIG, folder)
    rows = score(folder, cohort.aligned, store, cohort.splits, device="cpu")
    in_memory = score(folder, cohort.aligned, cohort.store, cohort.splits, device="cpu")
    pd.testing.assert_frame_equal(rows, in_memory)
    other = real_store(cohort, tmp_path / "other", "b" * 64)
    with pytest.raises(CheckpointError, match="embed with the same encoder weights"):
        score(folder, cohort.aligned, other, cohort.splits, device="cpu")
