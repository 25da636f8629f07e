"""Group pretrain: the encoder's own training, upstream of nothing; start it by hand and choose its weights by path."""

from assets.common import stage_asset
from pipeline import stages

pretrain_ppg_gpt = stage_asset(
    stages.pretrain_ppg_gpt,
    group="pretrain",
    kinds=("pytorch",),
    by_hand=True,
    description="PPG-GPT 1M, trained to predict the next second of PPG: on the data that UNIPHY_PRETRAINING names "
    "beside synthetic PPG, or on synthetic PPG alone. The shipped weights stay as they are.\n\n"
    "Hours of work, and no part of the job *everything*. It starts only when its run config says `start: true`; "
    "*Materialize all* on the lineage page passes it by.",
)
