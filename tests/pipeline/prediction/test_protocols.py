"""Which kind of estimate a checkpoint gives: the one it learnt, read from its record."""

import json
import shutil
from dataclasses import replace

import pytest

from pipeline.cohort.alignment_config import paper_alignment
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.prediction.config import PredictionConfig
from pipeline.prediction.protocols import bedside_protocol, learnt_protocols
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.checkpoints import load_model
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

TRAINING = TrainingConfig(
    epochs=1, batch_pieces=4, learning_rate=1e-2, warmup_epochs=0.0, tensorboard=False, device="cpu"
)


def trained(root, method="mt_pcs", **changed):
    cohort = tiny_cohort(n_patients=6, hours=1.5, draws=4, config=paper_alignment())
    config = replace(TRAINING, **{"protocols": ("start",)} | changed)
    train(
        method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), config, root / method
    )  # fmt: skip
    return root / method


@pytest.fixture(scope="module")
def from_start(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), lstm_centred=True)


def with_record(folder, where, change):
    """A copy of the checkpoint whose record was changed."""
    shutil.copytree(folder / "best", where)
    record = json.loads((where / "config.json").read_text())
    change(record)
    (where / "config.json").write_text(json.dumps(record))
    return where


@pytest.mark.parametrize(
    ("protocols", "chosen"),
    [(["start", "anchored"], "anchored"), (["anchored", "start"], "anchored"), (["start"], "start"),
     (["anchored"], "anchored")],
)  # fmt: skip
def test_anchored_where_it_was_learnt_else_start(from_start, tmp_path, protocols, chosen):
    def change(record):
        record["experiment"]["training"]["protocols"] = protocols
        record["provenance"]["alignment"]["protocols"] = ["start", "anchored"]

    folder = with_record(from_start, tmp_path / "changed", change)
    assert bedside_protocol(folder) == chosen
    for wanted in ("start", "anchored"):
        if wanted in protocols:
            assert bedside_protocol(folder, wanted) == wanted
        else:
            with pytest.raises(ConfigError, match=f"'{wanted}'.*learnt from .*{protocols[0]}"):
                bedside_protocol(folder, wanted)


def test_pieces_that_were_never_cut_were_not_learnt_from(from_start, tmp_path):
    """`training.protocols` names both, the cohort was cut for `start` alone."""
    folder = with_record(
        from_start, tmp_path / "changed",
        lambda record: record["experiment"]["training"].update(protocols=["start", "anchored"]),
    )  # fmt: skip
    assert learnt_protocols(load_model(folder)) == ("start",)
    assert bedside_protocol(folder) == "start"


def test_the_papers_model_estimates_as_start_though_its_lstm_looks_ahead(from_start, tmp_path):
    assert bedside_protocol(from_start) == "start"
    with pytest.raises(ConfigError, match="future"):
        bedside_protocol(trained(tmp_path, "lstm", lstm_centred=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["experiment"].pop("training"),
        lambda record: record["experiment"]["training"].pop("protocols"),
        lambda record: record["experiment"]["training"].update(protocols=[]),
        lambda record: record["provenance"].pop("alignment"),
    ],
)
def test_a_checkpoint_that_does_not_say_is_refused(from_start, tmp_path, change):
    with pytest.raises(CheckpointError, match=r"does not say.*train it again"):
        bedside_protocol(with_record(from_start, tmp_path / "changed", change))


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match=r"protocol = 'middle' must be one of"):
        PredictionConfig(protocol="middle")
