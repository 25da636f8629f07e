"""What is known of a synthetic cohort because we planted it: coupling, and the best that anyone could do."""

import pandas as pd

from pipeline.cohort.scored_set import scored_sets
from pipeline.experiments import ExperimentConfig
from pipeline.foundation import bootstrap
from pipeline.foundation.workspace import Workspace
from pipeline.report.synthetic import SyntheticCohort
from pipeline.sources.synthetic.truth import has_truth


def synthetic_cohort_of(workspace: Workspace, experiment: ExperimentConfig) -> SyntheticCohort | None:
    """Return the cohort of an experiment whose waveforms are planted, with the oracle's R2 on its draws; else None.

    The oracle is left out where the labs are real, which nobody planted, and where the truth is no longer there.
    """
    if not workspace.is_synthetic:
        return None
    real = workspace.labs is not None
    coupling = 0.0 if experiment.cohort.null else experiment.cohort.coupling
    there = has_truth(workspace.cohort) and workspace.aligned.exists()
    oracle = None if real or not there else _oracle(workspace, experiment)
    return SyntheticCohort(coupling=coupling, real_labs=real, oracle=oracle)


def _oracle(workspace: Workspace, experiment: ExperimentConfig) -> pd.DataFrame:
    """Return R2 of the oracle by protocol and lab."""
    from pipeline.cohort.aligned import AlignedCohort  # imports torch, which definitions must not
    from pipeline.cohort.splits import Splits
    from pipeline.prediction.scoring import score_estimator
    from pipeline.sources.synthetic.truth import CohortTruth, oracle_estimates

    truth = CohortTruth.load(workspace.cohort)
    split = experiment.evaluation.split
    table = score_estimator(
        "oracle",
        lambda examples: oracle_estimates(truth, examples),
        AlignedCohort.load(workspace.aligned),
        Splits.load(workspace.splits),
        splits_to_score=(split,),
    )
    rows = []
    for block in scored_sets(table, split):
        index, n_patients = bootstrap.index_patients(block.patient)
        once = bootstrap.replicate_weights(n_patients, 0, seed=0)
        r2 = bootstrap.pooled_r2(block.estimates["oracle"], block.truth, index, once)
        rows.append({"protocol": block.protocol, "lab": block.lab, "r2": float(r2[0])})
    return pd.DataFrame(rows, columns=["protocol", "lab", "r2"])
