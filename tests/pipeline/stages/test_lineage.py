"""The table of stages is complete: each field decides an artefact or is known to decide none."""

from pathlib import Path

import pytest

from pipeline.experiments import experiment
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.overrides import dotted
from pipeline.foundation.workspace import Workspace
from pipeline.stages.lineage import LINEAGE, UNCOMPARED, inputs_of, is_compared, own_fields, training_stage


def test_each_field_of_an_experiment_is_compared_or_known_to_change_nothing(tmp_path: Path) -> None:
    """Fails where a field is added to the experiment and to no stage: add it to `LINEAGE`, or to `UNCOMPARED`."""
    workspace, config = Workspace(root=tmp_path), experiment("tiny")
    owned = {field for stage in LINEAGE for field in own_fields(stage, workspace, config)}
    assert set(dotted(config)) - owned == {field for field in dotted(config) if not is_compared(field)}
    for part in UNCOMPARED:
        assert any(field == part or field.startswith(f"{part}.") for field in dotted(config)), part


def test_stages_come_after_what_they_are_made_from() -> None:
    order = list(LINEAGE)
    for stage, lineage in LINEAGE.items():
        assert all(order.index(name) < order.index(stage) for name in lineage.inputs)


def test_the_synthetic_cohort_is_no_input_of_real_waveforms(tmp_path: Path) -> None:
    planted, own = Workspace(root=tmp_path), Workspace(root=tmp_path, waveforms=tmp_path)
    planted.cohort.mkdir()
    (planted.cohort / "started.json").write_text("{}")
    config = experiment("tiny")
    assert inputs_of("waveform_catalog", planted, config) == ("synthetic_cohort",)
    assert inputs_of("waveform_catalog", own, config) == ()
    assert own_fields("synthetic_cohort", own, config) == {}


def test_methods_have_their_stages() -> None:
    assert training_stage("mt_pcs") == "train_mt_pcs"
    with pytest.raises(ConfigError, match="no method 'mtpcs'"):
        training_stage("mtpcs")
