"""Group evaluate: the paper's Table 1 beside ours."""

from assets.common import stage_asset
from assets.evaluation import evaluation
from pipeline import stages

table1 = stage_asset(
    stages.table1,
    group="evaluate",
    deps=[evaluation],
    kinds={"text", "parquet"},
    description="The paper's Table 1 in its own layout, its figures beside ours: R2 and skill, then the errors.",
)
