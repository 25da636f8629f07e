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
    description="Errors of every method on the same draws of test patients, with 95 % intervals by bootstrap over "
    "patients. *What PPG added* opens as a picture.\n\n"
    "* **R2**: 1 perfect, 0 no better than the mean of the draws, below 0 worse\n"
    "* **MAE**: mean absolute error, in the unit of the lab\n"
    "* **skill**: how much smaller the MAE is than LOCF's, which repeats the last result; 0 no better, 1 perfect\n"
    "* **start**: estimates from the 30th minute on, without later labs; **anchored**: from each lab result on",
)
report = stage_asset(
    stages.report,
    group="evaluate",
    deps=[evaluation],
    kinds={"html"},
    description="Self-contained HTML: Table 1, what PPG added, trajectories, calibration, subgroups, model card, and "
    "a summary of one page to print. **open the report** below opens it while `make ui` runs; else open the file that "
    "*report* names.",
)
