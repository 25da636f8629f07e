"""Asset checks: what must hold before anyone trusts, or trains on, an asset."""

from collections.abc import Callable

import dagster as dg

from assets.cohort import cohort_splits, lab_alignment, normalization_stats
from assets.embeddings import ppg_embeddings
from assets.evaluation import predictions, report
from assets.failures import explained
from assets.ingest import lab_events
from assets.resources import Project
from assets.training import training_assets
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.workspace import Workspace
from pipeline.stages import checks
from pipeline.stages.checks import CheckOutcome

Check = Callable[[Workspace, ExperimentConfig], CheckOutcome]


def asset_check(asset: dg.AssetsDefinition, check: Check, *, blocking: bool) -> dg.AssetChecksDefinition:
    """Return a check of `asset`; where it blocks and fails, nothing that lies behind the asset runs."""

    @dg.asset_check(asset=asset, name=check.__name__, blocking=blocking, description=check.__doc__)
    def run(project: Project) -> dg.AssetCheckResult:
        with explained(check.__name__):
            outcome = check(project.workspace(), project.config())
        severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            passed=outcome.passed,
            severity=severity,
            description=outcome.explanation,
            metadata=dict(outcome.numbers),
        )

    return run


asset_checks = [
    asset_check(ppg_embeddings, checks.store_matches_its_manifest, blocking=True),
    asset_check(lab_events, checks.units_are_plausible, blocking=True),
    asset_check(cohort_splits, checks.no_subject_in_two_splits, blocking=True),
    asset_check(normalization_stats, checks.scaling_comes_from_training_patients, blocking=True),
    asset_check(lab_alignment, checks.draws_found_a_window, blocking=False),
    asset_check(training_assets["mt_pcs"], checks.future_does_not_leak, blocking=True),
    asset_check(training_assets["mt_assim"], checks.future_does_not_leak_into_assimilation, blocking=True),
    asset_check(predictions, checks.locf_recomputed_independently, blocking=True),
    asset_check(report, checks.no_patient_ids_in_metadata, blocking=True),
]
