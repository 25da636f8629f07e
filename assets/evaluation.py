"""Group evaluate: every method on the same draws, then one report."""

from assets.common import stage_asset
from assets.training import training_assets
from pipeline import stages

predictions = stage_asset(
    stages.predictions,
    group="evaluate",
    deps=list(training_assets.values()),
    kinds={"parquet"},
    description="An estimate for each method and scored draw, with an interval that should hold nine of ten truths: "
    "*coverage* below shows how many it held among patients who were not used to set it.",
)
evaluation = stage_asset(
    stages.evaluation,
    group="evaluate",
    deps=[predictions],
    kinds={"parquet"},
    description="Errors of every method on the same draws, with 95 % intervals by bootstrap over patients. **skill "
    "over LOCF**: how much smaller the mean error is than when the last result is repeated; 0 no better, 1 perfect.",
)
report = stage_asset(
    stages.report,
    group="evaluate",
    deps=[evaluation],
    kinds={"html"},
    description="Self-contained HTML: Table 1, what PPG added, trajectories, calibration, subgroups, model card.",
)
