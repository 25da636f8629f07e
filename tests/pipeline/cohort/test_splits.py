import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cohort.splits import SplitConfig, Splits, cross_validation_divisions, split_subjects
from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.foundation.schema import SPLITS

PATIENTS = [f"{n}" for n in range(1000, 1200)]


def test_shares_are_70_15_15_with_a_third_of_validation_for_calibration():
    assert split_subjects(PATIENTS).counts == {"train": 140, "validation": 20, "calibration": 10, "test": 30}


@given(st.permutations(PATIENTS[:30]), st.integers(0, 5))
def test_neither_order_nor_repetition_of_the_patients_matters(patients, seed):
    config = SplitConfig(seed=seed)
    assert split_subjects([*patients, *patients[:3]], config) == split_subjects(PATIENTS[:30], config)


def test_the_seed_decides():
    assert split_subjects(PATIENTS, SplitConfig(seed=1)).hash != split_subjects(PATIENTS).hash
    assert (
        split_subjects(PATIENTS, SplitConfig(seed=1)).hash
        == split_subjects(PATIENTS, SplitConfig(seed=1)).hash
    )


@given(st.integers(4, 60))
def test_every_patient_is_in_one_split_and_no_split_is_empty(n):
    splits = split_subjects(PATIENTS[:n])
    assert sorted(splits.patients(*SPLITS)) == PATIENTS[:n]
    assert all(splits.counts.values())
    assert all(patient in splits.members[splits.split_of(patient)] for patient in PATIENTS[:n])


def test_too_few_patients_are_refused():
    with pytest.raises(ConfigError, match="3 patients cannot fill"):
        split_subjects(PATIENTS[:3])


def test_a_stranger_is_in_no_split_and_not_named():
    with pytest.raises(ConfigError) as error:
        split_subjects(PATIENTS).split_of("424242")
    assert "424242" not in str(error.value)


def test_file_round_trip_is_private(tmp_path):
    splits = split_subjects(PATIENTS, SplitConfig(seed=3))
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == splits
    assert stat.S_IMODE((tmp_path / "splits.json").stat().st_mode) == 0o600


def written(path, patients, **more):
    path.write_text(json.dumps({"patients": patients, **more}))
    return path


OWN = {"train": ["1", "2"], "validation": ["3"], "calibration": ["4"], "test": ["5"]}


def test_a_users_own_file_needs_no_hash(tmp_path):
    assert Splits.load(written(tmp_path / "s.json", OWN)).split_of("2") == "train"


@pytest.mark.parametrize("leaking", ["2", "02", "p000002", "2.0", " 2"])
def test_a_leaking_file_is_refused_without_naming_the_patient(tmp_path, leaking):
    path = written(tmp_path / "s.json", OWN | {"test": ["5", leaking]})
    with pytest.raises(LeakError, match=r"1 patient\(s\) are in more than one split") as error:
        Splits.load(path)
    assert "p000002" not in str(error.value)


def test_a_changed_file_is_refused(tmp_path):
    splits = split_subjects(PATIENTS)
    splits.save(tmp_path / "s.json")
    content = json.loads((tmp_path / "s.json").read_text())
    content["patients"]["train"].append(content["patients"]["test"].pop())
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(LeakError, match="was changed after it was drawn"):
        Splits.load(tmp_path / "s.json")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"patients": {"train": ["1"]}}', '{"patients": {"train": 1}}']
)
def test_a_file_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ConfigError, match="split file"):
        Splits.load(tmp_path / "s.json")


def test_its_representation_names_nobody():
    assert "1000" not in repr(split_subjects(PATIENTS))


@pytest.mark.parametrize(
    ("field", "value"),
    [("fractions", (0.8, 0.1, 0.2)), ("fractions", (1.0, -0.5, 0.5)), ("calibration_share", 1.0)],
)
def test_config_names_the_wrong_field(field, value):
    with pytest.raises(ValueError, match=field):
        SplitConfig(**{field: value})


@given(
    st.integers(2, 8),
    st.integers(6, 60),
    st.integers(0, 3),
    st.sampled_from([(0.7, 0.15, 0.15), (0.05, 0.9, 0.05)]),
)
def test_each_patient_is_tested_in_one_fold_and_every_split_of_each_is_filled(folds, n, seed, fractions):
    config = SplitConfig(seed=seed, fractions=fractions)
    if n < 2 * folds:
        with pytest.raises(ConfigError, match=f"folds = {folds} of {n} patients"):
            cross_validation_divisions(PATIENTS[:n], folds, config)
        return
    divisions = cross_validation_divisions([*PATIENTS[:n], *PATIENTS[:3]], folds, config)
    assert sorted(patient for splits in divisions for patient in splits.members["test"]) == PATIENTS[:n]
    for splits in divisions:
        assert sorted(splits.patients(*SPLITS)) == PATIENTS[:n]
        assert all(splits.counts.values())
        assert splits.counts["test"] >= 2


def test_folds_keep_the_configured_shares_of_those_who_are_not_tested():
    config = SplitConfig(fractions=(0.6, 0.24, 0.16))
    (first, *_) = cross_validation_divisions(PATIENTS, 5, config)
    assert first.counts == {"train": 114, "validation": 31, "calibration": 15, "test": 40}


@pytest.mark.parametrize("folds", [-1, 0, 1])
def test_a_single_fold_is_no_cross_validation(folds):
    with pytest.raises(ConfigError, match="at least 2 folds"):
        cross_validation_divisions(PATIENTS, folds)
