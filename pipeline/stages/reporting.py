"""The stage that writes ``report.html``, and ``summary.html``, its summary of one page."""

import datetime

import pandas as pd

from pipeline.experiments import ExperimentConfig
from pipeline.foundation.provenance import config_hash, versions
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.prediction.files import read_predictions
from pipeline.report.inputs import ReportInputs
from pipeline.stages.encoder_files import shown_encoder
from pipeline.stages.evaluate import initial_states, made_of_shares, makeups
from pipeline.stages.ingest import source_note
from pipeline.stages.planted_truth import synthetic_cohort_of
from pipeline.stages.provenance import agrees, recorded
from pipeline.stages.report_cohort import card_facts, characteristics_of, flow_of, summaries_of
from pipeline.store.admin import list_store
from pipeline.store.embeddings import EmbeddingStore
from pipeline.training.curves import read_curves


@recorded("report")
def report(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Write the self-contained report."""
    from pipeline.report.page import (
        write_report,
    )  # draws with matplotlib, which definitions need not wait for

    inputs = _inputs(workspace, experiment)
    write_report(workspace.report, inputs, workspace.one_page)
    return StageSummary(
        stage="report",
        counts={"megabytes": round(workspace.report.stat().st_size / 1e6, 2)},
        figures=_pictures(inputs),
        artefacts={"report": workspace.report, "one page": workspace.one_page},
    ).save(workspace.summary("report"))


def _inputs(workspace: Workspace, experiment: ExperimentConfig) -> ReportInputs:
    predictions = read_predictions(workspace, asset="report")
    evaluation = pd.read_parquet(require(workspace.evaluation, made_by="evaluation", asset="report"))
    trajectories, draws = _trajectories(workspace, experiment, predictions)
    summaries = dict(summaries_of(workspace, experiment))
    return ReportInputs(
        experiment=experiment.name,
        predictions=predictions,
        evaluation=evaluation,
        comparisons=pd.read_parquet(workspace.comparisons) if workspace.comparisons.exists() else None,
        delays=_delays(workspace, experiment),
        created=datetime.date.today().isoformat(),  # noqa: DTZ011 - the reader's calendar, not a patient's
        config_hash=config_hash(experiment)[:16],
        encoder=shown_encoder(experiment.encoder),
        source=source_note(workspace),
        data_licence="; ".join(list_store(EmbeddingStore.open(workspace.store)).licences),
        caveat=experiment.caveat,
        departures=experiment.departures,
        synthetic=synthetic_cohort_of(workspace, experiment),
        makeups=makeups(workspace, experiment),
        provenance={
            "Training runs a method": str(len(experiment.seeds)),
            "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        },
        flow=flow_of(workspace, summaries),
        characteristics=characteristics_of(workspace),
        card=card_facts(workspace, experiment),
        exclusions={stage: found["exclusions"] for stage, found in summaries.items() if found["exclusions"]},
        made_of=made_of_shares(workspace, experiment),
        initial_state=initial_states(workspace, experiment),
        training_curves=_curves(workspace, experiment),
        trajectories=trajectories,
        draws=draws,
        patients=pd.read_parquet(workspace.admissions),
        quality=_quality(workspace),
    )


def _pictures(inputs: ReportInputs) -> dict[str, str]:
    """Skill of every method, and the first patient's trajectory."""
    from pipeline.report.figures import forest_svg, trajectory_svg  # as above

    pictures = {"skill over LOCF": forest_svg(inputs.evaluation)}
    if inputs.trajectories is not None and inputs.draws is not None:
        first = inputs.trajectories["sequence"].iloc[0]
        estimates, draws = (
            table.loc[table["sequence"] == first] for table in (inputs.trajectories, inputs.draws)
        )
        pictures["trajectory of one test patient"] = trajectory_svg(estimates, draws)
    return pictures


def _curves(workspace: Workspace, experiment: ExperimentConfig) -> dict[str, list[dict]]:
    seed = experiment.seeds[0]
    found = {method: read_curves(workspace.checkpoint(method, seed)) for method in experiment.methods}
    return {method: rows for method, rows in found.items() if any(row["loss"] is not None for row in rows)}


def _delays(workspace: Workspace, experiment: ExperimentConfig) -> pd.DataFrame | None:
    """Return the table of delayed results where it is of these very models and labs; the report does without it."""
    fitting = agrees(workspace, experiment, "result_delay", beside="report")
    return pd.read_parquet(workspace.result_delay) if fitting else None


def _quality(workspace: Workspace) -> pd.DataFrame:
    """Signal quality of the window behind each scored draw."""
    examples = pd.read_parquet(workspace.aligned / "examples.parquet")
    times = examples["sampled_at_us"].to_numpy().astype("datetime64[us]")
    renamed = examples.assign(sampled_at=times).rename(columns={"sequence_id": "sequence"})
    return renamed.loc[:, ["sequence", "lab", "sampled_at", "spectral_concentration"]].drop_duplicates()


def _trajectories(
    workspace: Workspace, experiment: ExperimentConfig, predictions: pd.DataFrame
) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    from pipeline.report.trajectories import bedside_trajectories  # imports torch, which definitions must not

    folder = workspace.checkpoint("mt_pcs", experiment.seeds[0])
    if not folder.exists():
        return None, None
    require(folder / "intervals.json", made_by="predictions", asset="report")
    return bedside_trajectories(
        folder,
        EmbeddingStore.open(workspace.store),
        pd.read_parquet(workspace.lab_events),
        pd.read_parquet(workspace.admissions),
        predictions.loc[predictions["split"] == "test", "patient"].to_list(),
        experiment.sequences,
        experiment.alignment.start_history_windows,
    )
