"""Group evaluate: every method on the same draws, then one report."""

from assets.common import stage_asset
from assets.training import training_assets
from pipeline import stages

predictions = stage_asset(
    stages.predictions,
    group="evaluate",
    deps=list(training_assets.values()),
    kinds={"parquet"},
    description="One row for each method and scored draw, with conformal intervals.",
)
evaluation = stage_asset(
    stages.evaluation,
    group="evaluate",
    deps=[predictions],
    kinds={"parquet"},
    description="MAE, ME, RMSE, R2 and skill with 95 % intervals by bootstrap over patients, and paired differences.",
)
report = stage_asset(
    stages.report,
    group="evaluate",
    deps=[evaluation],
    kinds={"html"},
    description="Self-contained HTML: Table 1, what PPG added, trajectories, calibration, subgroups, model card.",
)
