"""Every experiment builds, and overrides are checked before anything runs."""

import dataclasses

import pytest

from models.regressor.config import LabRegressorConfig
from models.regressor.mamba_block import MambaConfig
from pipeline.experiments import (
    BEST_ENCODER,
    EXPERIMENTS,
    LONGEST_FIRST_STEP,
    ExperimentConfig,
    ModelShape,
    default_experiment_name,
    experiment,
)
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import canonical_json, config_hash, from_plain, to_plain
from pipeline.foundation.schema import FITTED_METHODS


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
        ("lines.mean_steps", "[20, 60]", (20.0, 60.0)),
        ("assimilation.features", "16", 16),
        ("assimilation.network.folds", "0", 0),
        ("assimilation.network.learning_rate", "1e-3", 1e-3),
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
        ("training.amp", "maybe", "Input should be a valid boolean or 'auto'"),
    ],
)
def test_a_bad_override_is_one_clear_error(path: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment("tiny", {path: text})


HASHES = {
    "demo": "f181663dc3f9665ab584b423d64d7cb488c2e6532b9fdac6bac48cdad33f1d60",
    "default": "cca3ae06276a46553748a02a498ff4172bd77dd554345fb4f644c6d5325d37e6",
    "paper": "9d41bfca671e9e50c751e395623d1fb94d9638fa582f9ce7077fb46cdee2a3d3",
    "authors": "b90a0e1a420f60dfc398f41f9c07bc8508320d9e16ecbaa2d88fa5101b21e432",
    "recovery": "25d15b7acb8c39c862eb7f55e5eb46961540b13f3fb3f5bbfcb465810db016c8",
    "tiny": "a6ad430b79360be8ada2a6414a93d3ffbe300b46b23d474f5dae669df3b96af4",
}
"""Of today's experiments; a new field changes them, and nothing else may."""


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_validation_changes_no_hash(name: str) -> None:
    assert config_hash(experiment(name)) == HASHES[name]
    same = experiment(name, {"training.seed": "0", "splits.seed": "0"})
    assert (config_hash(same), same) == (HASHES[name], experiment(name))


def test_an_override_changes_its_field_alone() -> None:
    """Pinned, like the hashes above."""
    assert config_hash(experiment("demo", {"training.epochs": "3"})) == (
        "61aa1ab6b353b1d642325e393b05f2c3e99f0d792cc7587a8cdf6f3e70b63eb1"
    )


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_count_together_in_any_order(order: int) -> None:
    both = {"cohort.size.hours_low": "150", "cohort.size.hours_high": "166"}
    size = experiment("tiny", dict(list(both.items())[::order])).cohort.size
    assert (size.hours_low, size.hours_high) == (150.0, 166.0)
    with pytest.raises(
        ConfigError, match=r"Override 'cohort.size.hours_low' = '150' is refused: .*hours_low <="
    ):
        experiment("tiny", {"cohort.size.hours_low": "150"})


def test_every_refusal_is_told_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"'splits.fractions' .* add up to 1.*; Override 'training.epochs' .*at least 1"
    ):
        experiment(
            "tiny", {"training.epochs": "0", "training.seed": "1", "splits.fractions": "[0.5, 0.5, 0.5]"}
        )


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 65, "ä"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match="must be a name, not a path"):
        experiment("tiny", {"name": name})


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (
            "methods",
            '["mtpcs"]',
            "choose one or more of lstm, mt, mt_learned, st_pcs, mt_pcs, mt_pcs_twin, lines",
        ),
        ("methods", "[]", "choose one or more of lstm"),
        ("seeds", "[]", "different numbers"),
        ("seeds", "[1, 1]", "different numbers"),
        ("cohort.coupling", "2", "must lie in 0..1"),
        ("cohort.null", "c", "choose a, b or null"),
        ("model.d_model", "-3", "d_model = -3 must be at least 1"),
        ("model.n_blocks", "0", "n_blocks = 0 must be at least 1"),
        ("model.d_state", "0", "must be at least 1"),
        ("model.trunk_width", "0", "must be at least 1"),
        ("model.hidden", "0", "must be at least 1"),
        ("model.slow_features", "0", "must be at least 1"),
        ("model.reader_width", "0", "must be at least 1"),
        ("model.dropout", "1", r"dropout = 1.0 must lie in \[0, 1\)"),
        ("model.dt_min", "0", "dt_min = 0.0 must lie in"),
        ("model.dt_min", "0.2", "dt_min = 0.2 must lie in"),
        ("model.mean_steps", "[0.5]", "each must be at least 1"),
        ("lines.mean_steps", "[]", "at least one"),
        ("lines.slow_features", "0", "slow_features = 0 must be at least 1"),
        ("assimilation.features", "0", "features = 0 must be at least 1"),
        ("assimilation.reading_weight", "2", "must lie in 0..1"),
        ("assimilation.prior_weight", "-1", "must not be negative"),
        ("assimilation.log_scale", '["lactate", "lactate"]', "no lab twice"),
        (
            "encoder",
            "ppg_gpt_1m+median",
            r"'encoder' = .* is refused: .*there is no \+median; after the name",
        ),
        ("encoder", "ppg_gpt_1m+mean+layers", r"\+mean\+layers is not in order"),
        ("encoder", "papagei_s:/w.pt+mean", r"\+mean is for PPG-GPT alone"),
        ("training.device", "cuda:x", "choose auto, cpu, cuda or cuda:N"),
        ("training.device", "gpu", "choose auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_would_fail_after_hours_is_refused_at_once(path: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment("tiny", {path: text})


def test_ours_take_the_best_encoder_and_the_papers_the_last_position() -> None:
    assert {name: experiment(name).encoder for name in EXPERIMENTS} == {
        **dict.fromkeys(("demo", "default", "recovery", "tiny"), BEST_ENCODER),
        **dict.fromkeys(("paper", "authors"), "ppg_gpt_1m"),
    }


SIZES = {"d_model": 0, "n_blocks": 0, "d_state": 0, "trunk_width": 0, "slow_features": 0, "reader_width": 0,
         "dropout": 1.0, "dt_min": 0.2, "mean_steps": (0.5,)}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_the_experiments_sizes_have_the_models_rules(name: str) -> None:
    """What the model would refuse after the data were read; and the largest step is the model's."""
    with pytest.raises(ValueError, match=name):
        ModelShape(**{name: SIZES[name]})
    with pytest.raises(ValueError, match=name):
        LabRegressorConfig(embed_width=16, **{name: SIZES[name]})
    assert MambaConfig(d_model=4).dt_max == LONGEST_FIRST_STEP


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_mt_pcs_is_the_papers_method_and_lines_have_a_row_of_their_own(name: str) -> None:
    config = experiment(name)
    assert not config.training.fit_lines
    assert not config.model.mean_steps
    assert config.model.reader_width is None
    assert config.model.history_skip == (name not in ("paper", "authors"))
    fitted = set(FITTED_METHODS) - ({"mt_assim_lines"} if name in ("demo", "recovery") else set())
    assert fitted <= set(config.methods) or name in ("paper", "authors")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_tables_say_where_history_enters_otherwise_than_in_the_paper(name: str) -> None:
    config = experiment(name)
    assert ("history_skip" in config.above_tables) == config.model.history_skip
    assert config.above_tables.startswith(config.caveat)


def test_each_method_takes_its_own_shape() -> None:
    config = experiment("demo")
    shapes = [config.shape_of(method) for method in ("mt_pcs", "lines", "mt_assim", "mt_assim_twin")]
    assert shapes == [config.model, config.lines, config.assimilation, config.assimilation]


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
    assert default_experiment_name("/somewhere") == "default"
    monkeypatch.setenv("UNIPHY_WAVEFORMS", "/somewhere")
    assert default_experiment_name() == "default"
    monkeypatch.setenv("UNIPHY_EXPERIMENT", "paper")
    assert default_experiment_name() == "paper"
    assert default_experiment_name("/somewhere") == "paper"
