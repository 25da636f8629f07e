"""Every experiment builds, and overrides are checked before anything runs."""

import dataclasses

import pytest

from pipeline.experiments import EXPERIMENTS, ExperimentConfig, default_experiment_name, experiment
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import canonical_json, config_hash, from_plain, to_plain


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds_under_its_own_name(name: str) -> None:
    assert experiment(name).name == name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_configuration_survives_json(name: str) -> None:
    config = experiment(name)
    again = from_plain(ExperimentConfig, to_plain(config))
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_each_experiment_has_its_own_hash() -> None:
    assert len({config_hash(experiment(name)) for name in EXPERIMENTS}) == len(EXPERIMENTS)
    assert '"name":"demo"' in canonical_json(experiment("demo"))


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("training.epochs", "3", 3),
        ("alignment.history.features", "paper", "paper"),
        ("seeds", "[0, 1]", (0, 1)),
        ("model.mean_steps", "[20, 60]", (20.0, 60.0)),
        ("training.learning_rate", "1e-3", 1e-3),
        ("encoder", "5", "5"),
        ("cohort.null", "null", None),
        ("cohort.null", "a", "a"),
        ("training.fit_lines", "false", False),
    ],
)
def test_overrides_reach_their_field(path: str, text: str, expected: object) -> None:
    value: object = experiment("tiny", {path: text})
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("training.epoch", "3", "no field 'epoch'"),
        ("training", "3", "single value"),
        ("training.epochs.more", "3", "single value"),
        ("training.epochs", "0", "epochs = 0 must be at least 1"),
        ("training.epochs", "many", r"'training.epochs' = 'many' is refused: .*integer"),
        ("training.epochs", "2.5", "integer"),
        ("training.epochs", "true", "integer"),
        ("training.learning_rate", "NaN", "finite number"),
        ("encoder_precision", "float16", "'auto', 'float32' or 'bfloat16'"),
        ("methods", "mt_pcs", r"write a list as JSON, such as \["),
        ("splits.fractions", '["a", "b", "c"]', "refused"),
        ("scorings", '["sparse"]', "'measured' or 'dense'"),
    ],
)
def test_a_bad_override_is_one_clear_error(path: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment("tiny", {path: text})


def test_experiments_that_flatter_say_so() -> None:
    assert "Flatters" in experiment("authors").caveat
    assert experiment("authors").training.allow_leaks
    assert not any(experiment(name).training.allow_leaks for name in EXPERIMENTS if name != "authors")


def test_splits_stay_when_only_the_training_seed_changes() -> None:
    one = experiment("demo")
    other = dataclasses.replace(one, training=dataclasses.replace(one.training, seed=5))
    assert one.splits == other.splits


def test_own_waveforms_mean_the_default_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("UNIPHY_EXPERIMENT", "UNIPHY_WAVEFORMS"):
        monkeypatch.delenv(variable, raising=False)
    assert default_experiment_name() == "demo"
    monkeypatch.setenv("UNIPHY_WAVEFORMS", "/somewhere")
    assert default_experiment_name() == "default"
    monkeypatch.setenv("UNIPHY_EXPERIMENT", "paper")
    assert default_experiment_name() == "paper"
