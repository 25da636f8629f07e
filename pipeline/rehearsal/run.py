"""Run a rehearsal stage by stage, keep what is measured, go on where a killed one stopped."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from pipeline import stages
from pipeline.emulation.model import Emulator
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace
from pipeline.rehearsal import inputs, judging, learning
from pipeline.rehearsal.measure import Measure, Outcome, Row, measured
from pipeline.rehearsal.plan import Rehearsal
from pipeline.stages.sources import claim_source

logger = logging.getLogger(__name__)

Work = Callable[[Rehearsal], Outcome]
_SHOWN = 6


def _stage(run: Callable, rehearsal: Rehearsal) -> Outcome:
    """Run one of the job's own stages as it is."""
    workspace: Workspace = rehearsal.workspace
    summary: StageSummary = run(workspace, rehearsal.staged)
    numbers = {k: v for k, v in summary.counts.items() if isinstance(v, int | float)}
    return Outcome(counts=dict(list(numbers.items())[:_SHOWN]))


COHORT_STAGES: Mapping[str, Work] = {
    "generate": inputs.generate,
    "labs": partial(_stage, stages.lab_events),
    "split": partial(_stage, stages.cohort_splits),
    "normalize": partial(_stage, stages.normalization_stats),
    "align": partial(_stage, stages.lab_alignment),
    "plan training": learning.plan_training,
    "train (sample)": learning.train_sample,
    "validate (sample)": learning.validate_sample,
    "score (sample)": learning.score_sample,
    "explain (sample)": learning.explain_sample,
    "dense sums": judging.stream_sums,
    "predictions": judging.predict_planted,
    "evaluate": judging.evaluate,
    "report": judging.report,
}
HEADER_STAGES: Mapping[str, Work] = {
    "generate headers": inputs.generate_headers,
    "catalog": inputs.catalogue_headers,
    "plan embedding": inputs.plan_headers,
    "check files": inputs.recheck_headers,
}


def rehearse(rehearsal: Rehearsal, measure: Measure = measured) -> Iterator[Row]:
    """Run every stage that is not done and yield each one's row.

    Parameters
    ----------
    measure : runs one stage; by default in a process of its own

    Raises
    ------
    ConfigError : the folder holds another rehearsal
    MissingArtifactError, CheckpointError : no emulator, or another encoder's
    """
    rehearsal.claim(Emulator.load(rehearsal.emulator).identity)
    claim_source(rehearsal.workspace, "synthetic_cohort")  # its stages find a catalogue without recordings
    for name, work in stages_of(rehearsal).items():
        path = rehearsal.row_file(name)
        row = Row.load(path)
        if row is None:
            logger.info("rehearsal: %s", name)
            row = measure(name, partial(work, rehearsal)).save(path)
        yield row


def stages_of(rehearsal: Rehearsal) -> dict[str, Work]:
    """Return the stages by name, in order."""
    return {**COHORT_STAGES, **(HEADER_STAGES if rehearsal.size.records else {})}


def other_sizes(rehearsal: Rehearsal) -> dict[int, dict[str, Row]]:
    """Return the rows of finished rehearsals of this experiment with other numbers of patients."""
    found: dict[int, dict[str, Row]] = {}
    for folder in sorted(
        rehearsal.root.parent.glob(f"{rehearsal.experiment.name}-*x{rehearsal.size.days:g}")
    ):
        rows = [Row.load(path) for path in sorted((folder / "measured").glob("*.json"))]
        record = folder / "rehearsal.json"
        if record.is_file() and rows and folder != rehearsal.root:
            patients = int(json.loads(record.read_text())["patients"])
            found[patients] = {row.stage: row for row in rows if row is not None}
    return found
