"""Group pretrain: the encoder's own training, upstream of nothing; start it by hand and choose its weights by path."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.code_versions import code_version
from assets.common import OWNERS
from assets.failures import explained
from assets.metadata import result
from assets.resources import Project
from pipeline import stages


class PretrainingRun(dg.Config):
    """Whether hours of work were meant."""

    start: bool = Field(
        default=False,
        description="true: pretrain, for hours. false: nothing is done, so that *Materialize all* is safe.",
    )


@dg.asset(
    group_name="pretrain",
    kinds={"pytorch"},
    owners=OWNERS,
    description="PPG-GPT 1M, trained to predict the next second of PPG: on the data that UNIPHY_PRETRAINING names "
    "beside synthetic PPG, or on synthetic PPG alone. The shipped weights stay as they are.\n\n"
    "Hours of work, and no part of the job *everything*. It starts only when its run config says `start: true`; "
    "*Materialize all* on the lineage page passes it by.",
    code_version=code_version(stages.pretrain_ppg_gpt.__module__),
    output_required=False,
)
def pretrain_ppg_gpt(
    context: dg.AssetExecutionContext, config: PretrainingRun, project: Project
) -> Iterator[dg.MaterializeResult]:
    """Pretrain the encoder if the run config says so."""
    if not config.start:
        context.log.info(
            "Pretraining takes hours and was not asked for: set start to true in this asset's run config."
        )
        return
    with explained("pretrain_ppg_gpt"):
        yield result(stages.pretrain_ppg_gpt(project.workspace(), project.config()))
