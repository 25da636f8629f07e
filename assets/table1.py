"""Group evaluate: the paper's Table 1 beside ours."""

from assets.common import stage_asset
from assets.evaluation import evaluation
from pipeline import stages

table1 = stage_asset(
    stages.table1,
    group="evaluate",
    deps=[evaluation],
    kinds={"text", "parquet"},
    description="The paper's Table 1 and ours: one row a method, one column a lab. The file has intervals and "
    "errors too.\n\n"
    "*Skill over LOCF*: 0 is no better than repeating the last result, 1 perfect. The paper's MIMIC-III errors are not "
    "in clinical units, so R2 and skill are what can be compared.",
)
