"""Weights say whom they learned from, to those who know whom to ask, and a division that holds one out is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.cohort.encoder_patients import (
    PATIENTS_KEY,
    LearnedFrom,
    known_patients,
    learned_from,
    refuse_learned_patients,
    to_header,
)
from pipeline.cohort.splits import Splits
from pipeline.foundation.errors import CheckpointError, LeakError

TRAIN, VALIDATION = ("100017", "100024"), ("100031",)


def weights(path: Path, *generations: LearnedFrom) -> Path:
    save_file({"a": torch.zeros(2)}, path, metadata={PATIENTS_KEY: to_header(generations)})
    return path


def division(**members: tuple[str, ...]) -> Splits:
    rest = {"train": ("1",), "validation": ("2",), "calibration": ("3",), "test": ("4",)}
    return Splits(members={name: (*ids, *members.get(name, ())) for name, ids in rest.items()})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return weights(tmp_path / "model.safetensors", LearnedFrom.of({"train": TRAIN, "validation": VALIDATION}))


def test_the_file_knows_its_patients_by_any_spelling_and_shows_none(file: Path) -> None:
    (one,) = learned_from(file)
    assert [one.use_of(p) for p in ("100017", "p100024", "0100031", "100032")] == [
        "train",
        "train",
        "validation",
        None,
    ]
    assert known_patients([one], ["100031", "100032"]) == {"100031"}
    assert not any(patient.encode() in file.read_bytes() for patient in (*TRAIN, *VALIDATION))


def test_two_files_of_the_same_patients_have_nothing_in_common(tmp_path: Path, file: Path) -> None:
    again = weights(
        tmp_path / "again.safetensors", LearnedFrom.of({"train": TRAIN, "validation": VALIDATION})
    )
    (one,), (other,) = learned_from(file), learned_from(again)
    assert not one.hashes["train"] & other.hashes["train"]
    assert other.use_of(TRAIN[0]) == "train"


@pytest.mark.parametrize(
    ("patient", "split", "refused"),
    [
        (TRAIN[0], "train", False),
        (TRAIN[0], "validation", True),
        (TRAIN[0], "calibration", True),
        (TRAIN[1], "test", True),
        (VALIDATION[0], "train", False),
        (VALIDATION[0], "validation", False),
        (VALIDATION[0], "calibration", True),
        (VALIDATION[0], "test", True),
        ("555", "test", False),
    ],
)
def test_who_trained_must_train_and_who_chose_may_choose(
    file: Path, patient: str, split: str, refused: bool
) -> None:
    splits = division(**{split: (patient,)})
    if not refused:
        refuse_learned_patients(learned_from(file), splits, "mine.safetensors")
        return
    with pytest.raises(
        LeakError, match=r"mine.safetensors was fine-tuned on the labs of 1 patients.*splits.seed"
    ) as e:
        refuse_learned_patients(learned_from(file), splits, "mine.safetensors")
    assert patient not in str(e.value)


def test_a_second_fine_tuning_keeps_the_firsts_patients(tmp_path: Path, file: Path) -> None:
    both = weights(
        tmp_path / "b.safetensors", *learned_from(file), LearnedFrom.of({"train": ["77"], "validation": []})
    )
    assert known_patients(learned_from(both), ["77", TRAIN[0], "78"]) == {"77", TRAIN[0]}


def test_other_files_know_nobody(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    (tmp_path / "old.pth").write_bytes(b"anything")
    assert (
        learned_from(tmp_path / "plain.safetensors")
        == learned_from(tmp_path / "old.pth")
        == learned_from(None)
        == ()
    )


@pytest.mark.parametrize("damage", [b"", b"\x10\0\0\0\0\0\0\0{", b"\xff" * 32])
def test_a_damaged_header_is_one_clear_error(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"model.safetensors: its header cannot be read"):
        learned_from(path)


@pytest.mark.parametrize("text", ["[{}]", "[1]", "{", '[{"salt": "xyz", "iterations": 1, "hashes": {}}]'])
def test_hashes_that_make_no_sense_are_one_clear_error(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors", metadata={PATIENTS_KEY: text})
    with pytest.raises(CheckpointError, match="header cannot be read"):
        learned_from(tmp_path / "m.safetensors")
