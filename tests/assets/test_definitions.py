"""The definitions load, quickly and without torch; every asset is as designed."""

import base64
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest

import assets
from assets.checks import asset_check
from assets.common import Start, stage_asset
from assets.definitions import defs
from assets.embeddings import ppg_embeddings
from assets.encoder_training import train_encoder
from assets.failures import explained, retried
from assets.labels import LABELS, label
from assets.metadata import BAR, BAR_LENGTH, metadata, result
from assets.pretraining import pretrain_ppg_gpt
from assets.resources import ExperimentName, Project
from assets.training import training_assets
from pipeline import stages
from pipeline.experiments import EXPERIMENTS
from pipeline.foundation.errors import ConfigError, RecordError
from pipeline.foundation.schema import TRAINED_METHODS
from pipeline.foundation.summary import StageSummary
from pipeline.stages.checks import CheckOutcome
from pipeline.stages.lineage import LINEAGE

GROUPS = {
    "ingest": {"synthetic_cohort", "waveform_catalog", "lab_events"},
    "embed": {"ppg_embeddings"},
    "align": {"cohort_splits", "normalization_stats", "lab_alignment"},
    "train": {
        "train_lstm",
        "train_mt",
        "train_mt_learned",
        "train_st_pcs",
        "train_mt_pcs",
        "train_mt_pcs_twin",
        "train_lines",
        "train_mt_assim",
        "train_mt_assim_twin",
        "train_mt_assim_lines",
        "train_encoder",
    },
    "evaluate": {"predictions", "evaluation", "report", "table1"},
    "pretrain": {"pretrain_ppg_gpt"},
}


def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


@pytest.mark.parametrize("group", GROUPS)
def test_groups_hold_their_assets(group: str) -> None:
    found = {name for name, spec in specs().items() if spec.group_name == group}
    assert found == GROUPS[group]


def defined() -> Iterator[dg.AssetsDefinition]:
    """Yield every asset that a module of ``assets`` holds, by itself or in a collection."""
    for found in pkgutil.iter_modules(assets.__path__):
        for held in vars(importlib.import_module(f"assets.{found.name}")).values():
            one_by_one = (
                held.values() if isinstance(held, dict) else held if isinstance(held, list) else [held]
            )
            yield from (it for it in one_by_one if isinstance(it, dg.AssetsDefinition))


def test_every_asset_that_is_defined_is_in_a_group_and_in_the_definitions() -> None:
    named = {key.to_user_string() for asset in defined() for key in asset.keys}
    assert named == set(specs())
    assert named == set[str]().union(*GROUPS.values())


UNRECORDED = {"pretrain_ppg_gpt": "belongs to no experiment: its record lies beside the weights"}
STAGES = {"ppg_embeddings": "finish_embedding"} | {f"train_{method}": "train" for method in TRAINED_METHODS}


def test_the_stage_of_every_asset_checks_its_inputs_and_leaves_a_record() -> None:
    """Its lineage is known, and it stands under ``@recorded``; or the reason why not stands above."""
    assert set(specs()) - set(LINEAGE) == set(UNRECORDED)
    for name in set(specs()) - set(UNRECORDED):
        stage = getattr(stages, STAGES.get(name, name))
        assert hasattr(stage, "__wrapped__"), f"{name}: the stage {stage.__name__} lacks @recorded"


def test_every_trained_method_is_an_asset() -> None:
    assert set(training_assets) == set(TRAINED_METHODS)


def test_every_asset_explains_itself() -> None:
    for name, spec in specs().items():
        assert len(spec.description or "") > 40, name
        assert spec.owners, name
        assert spec.kinds, name


def test_definitions_load_without_torch() -> None:
    script = "import sys, assets.definitions; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=False)
    assert done.returncode == 0, "importing the definitions imported torch"


def test_a_project_error_becomes_one_sentence() -> None:
    with pytest.raises(dg.Failure, match="records cannot be read") as caught, explained("waveform_catalog"):
        raise RecordError("records cannot be read")
    assert caught.value.__cause__ is None
    assert not caught.value.allow_retries


def test_a_programmers_error_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), explained("waveform_catalog"):
        _ = 1 / 0


def run_of_batches(errors: dict[str, list[Exception]]) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    """Run two batches; each raises its errors, one an attempt."""
    attempts: list[str] = []

    @dg.op(out=dg.DynamicOut())
    def plan():
        yield dg.DynamicOutput("a", mapping_key="a")
        yield dg.DynamicOutput("b", mapping_key="b")

    @dg.op
    def embed(batch):
        attempts.append(batch)
        with retried(pause_seconds=0), explained("ppg_embeddings"):
            if errors.get(batch):
                raise errors[batch].pop(0)

    @dg.job
    def job():
        plan().map(embed)

    return job.execute_in_process(raise_on_error=False), attempts


def test_only_the_batch_that_failed_is_tried_again() -> None:
    outcome, attempts = run_of_batches({"b": [OSError("disk"), RuntimeError("CUDA")]})
    assert outcome.success
    assert attempts == ["a", "b", "b", "b"]


def test_a_users_mistake_is_not_tried_again() -> None:
    outcome, attempts = run_of_batches({"b": [RecordError("unreadable")]})
    assert not outcome.success
    assert attempts == ["a", "b"]


def test_a_cancelled_step_is_not_tried_again() -> None:
    """Dagster 1.13 retries interrupted steps that have a retry policy."""
    policies = [node.definition.retry_policy for node in ppg_embeddings.node_def.nodes]
    assert policies == [None] * 3


def test_metadata_shows_counts_and_drops() -> None:
    summary = StageSummary(
        stage="x",
        counts={"n_windows": 3, "share": float("nan"), "used": True, "name": "n"},
        exclusions={"flat": 2},
        tables={"rows": [{"a": 1}, {"b": 2.5}]},
        figures={"loss": "<svg/>"},
    )
    shown = metadata(summary, "demo", {"open the report": "http://127.0.0.1:3001/demo/report.html"})
    assert shown["n windows \N{MIDDLE DOT} demo"] == dg.MetadataValue.int(3)
    assert shown["what is used"] == dg.MetadataValue.bool(True)
    assert shown["share"] == dg.MetadataValue.text("")
    assert isinstance(shown["dropped, by reason"], dg.TableMetadataValue)
    assert [column.name for column in shown["rows"].schema.columns] == ["a", "b"]
    assert "data:image/svg+xml;base64," in shown["loss (picture)"].value
    assert list(shown)[:3] == ["experiment", "open the report", "loss (picture)"]
    assert shown["experiment"].value == "demo"
    assert isinstance(shown["open the report"], dg.UrlMetadataValue)


def test_numbers_of_two_experiments_are_never_one_plot() -> None:
    """Dagster draws what carries one name over all runs of an asset."""
    summary = StageSummary(stage="x", counts={"best_validation_error": 0.1, "windows": 3, "encoder": "one"})
    drawn = [
        {
            name
            for name, value in metadata(summary, experiment).items()
            if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)
        }
        for experiment in ("demo", "tiny")
    ]
    assert len(drawn[0]) == len(drawn[1]) == 2
    assert not drawn[0] & drawn[1]


def test_counts_come_with_bars_and_the_most_frequent_reason_first() -> None:
    shown = metadata(
        StageSummary(stage="x", exclusions={"window: flat": 1, "window: missing samples": 100}), "demo"
    )
    records = [record.data for record in shown["dropped, by reason"].records]
    assert [record["count"] for record in records] == [100, 1]
    assert [len(record[BAR]) for record in records] == [BAR_LENGTH, 1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hours", LABELS["hours"]),
        ("potassium_best_epoch", f"potassium: {LABELS['best_epoch']}"),
        ("targets_measured_sodium", f"{LABELS['targets_measured']}: sodium"),
        ("calcium_targets_measured_calcium", f"calcium: {LABELS['targets_measured']}: calcium"),
        ("not_trained", "not trained"),
    ],
)
def test_counts_are_named_in_words(name: str, words: str) -> None:
    assert label(name) == words


def test_short_texts_of_a_table_stay_on_one_line() -> None:
    rows = [{"R2 95 %": "0.10 to 0.20", "reason": "a reason that needs more than one line"}]
    record = metadata(StageSummary(stage="x", tables={"t": rows}), "demo")["t"].records[0].data
    assert record["R2 95 %"] == "0.10\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}0.20"
    assert " " in record["reason"]


def test_tables_show_four_digits_and_labels_without_underscores() -> None:
    shown = metadata(
        StageSummary(stage="x", tables={"t": [{"learning_rate": 0.00012345678, "n": 1, "b": "c"}]}), "demo"
    )
    assert shown["t"].records[0].data == {"learning rate": 0.0001235, "n": 1, "b": "c"}


def test_data_version_reaches_dagster() -> None:
    assert result(StageSummary(stage="x", data_version="abc"), "demo").data_version == dg.DataVersion("abc")


def test_overrides_are_checked() -> None:
    assert Project(experiment="tiny", overrides={"training.epochs": "3"}).config().training.epochs == 3
    with pytest.raises(ConfigError, match="there is no field 'epoch'"):
        Project(experiment="tiny", overrides={"training.epoch": "3"}).config()


def test_the_launchpad_offers_every_experiment_and_refuses_others() -> None:
    assert {name.value for name in ExperimentName} == {"", *EXPERIMENTS}
    job = defs.resolve_job_def("everything")

    def config(name: str) -> dict:
        return {"resources": {"project": {"config": {"experiment": name}}}}

    assert dg.validate_run_config(job, config("paper"))
    with pytest.raises(dg.DagsterInvalidConfigError, match="not in enum type ExperimentName got dmeo"):
        dg.validate_run_config(job, config("dmeo"))


def test_an_experiment_left_open_comes_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("UNIPHY_EXPERIMENT", "tiny")
    assert Project().config().name == "tiny"
    assert Project(experiment="paper").config().name == "paper"


def test_waveforms_of_the_resource_mean_the_default_experiment(tmp_path, monkeypatch) -> None:
    for variable in ("UNIPHY_EXPERIMENT", "UNIPHY_WAVEFORMS"):
        monkeypatch.delenv(variable, raising=False)
    assert Project().config().name == "demo"
    assert Project(waveforms=str(tmp_path)).config().name == "default"
    assert Project(waveforms=str(tmp_path)).workspace().root.name == "default"
    assert Project(waveforms=str(tmp_path), experiment="paper").config().name == "paper"
    with pytest.raises(ConfigError, match="'labs' of the resource 'project' names /nowhere"):
        Project(labs="/nowhere").workspace()


def test_run_config_points_the_store_at_object_storage(tmp_path) -> None:
    project = Project(experiment="tiny", artifacts=str(tmp_path), embeddings="s3://bucket/prefix")
    assert project.workspace().store == "s3://bucket/prefix/tiny"
    assert project.workspace().root == tmp_path / "tiny"


@pytest.mark.parametrize("passes", [True, False])
def test_what_lies_behind_a_blocking_check_waits_for_it(passes: bool) -> None:
    @dg.asset
    def first(): ...

    @dg.asset(deps=[first])
    def behind(): ...

    def rule(workspace, experiment) -> CheckOutcome:
        return CheckOutcome(passed=passes, explanation="looked")

    outcome = dg.materialize(
        [first, behind, asset_check(first, rule, blocking=True)],
        resources={"project": Project(experiment="tiny")},
        raise_on_error=False,
    )
    done = {event.asset_key.to_user_string() for event in outcome.get_asset_materialization_events()}
    assert done == ({"first", "behind"} if passes else {"first"})


def test_every_check_blocks_but_the_one_that_only_warns() -> None:
    blocking = {
        spec.name: spec.blocking for definition in defs.asset_checks or () for spec in definition.check_specs
    }
    assert blocking.pop("draws_found_a_window") is False
    assert len(blocking) == 8
    assert all(blocking.values())


def test_pictures_have_their_natural_size() -> None:
    svg = '<svg style="width:100%" viewBox="0 0 648 180"></svg>'
    shown = metadata(StageSummary(stage="x", figures={"loss": svg}), "demo")["loss (picture)"].value
    drawn = base64.b64decode(shown.partition("base64,")[2].rstrip(")")).decode()
    assert drawn == '<svg width="864" height="240" viewBox="0 0 648 180"></svg>'


@pytest.mark.parametrize("start", [False, True])
def test_hours_of_work_start_only_when_asked_to(start: bool) -> None:
    calls = []

    def pretrain(workspace: object, experiment: object) -> StageSummary:
        calls.append(workspace)
        return StageSummary(stage="pretrain", counts={})

    asset = stage_asset(pretrain, group="pretrain", description="hours", by_hand=True)
    config = dg.RunConfig(ops={"pretrain": Start(start=start)})
    outcome = dg.materialize([asset], resources={"project": Project()}, run_config=config)
    assert outcome.success
    assert len(calls) == len(outcome.asset_materializations_for_node("pretrain")) == start


@pytest.mark.parametrize("asset", [pretrain_ppg_gpt, train_encoder])
def test_training_an_encoder_waits_to_be_asked(asset: dg.AssetsDefinition) -> None:
    name = asset.key.to_user_string()
    outcome = dg.materialize([asset], resources={"project": Project()})
    assert outcome.success
    assert outcome.asset_materializations_for_node(name) == []


def test_the_encoder_is_tuned_after_alignment_and_by_no_job() -> None:
    assert {dep.asset_key.to_user_string() for dep in specs()["train_encoder"].deps} == {"lab_alignment"}
    everything = defs.resolve_job_def("everything").asset_layer.executable_asset_keys
    assert dg.AssetKey("train_encoder") not in everything
