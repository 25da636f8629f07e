"""One shape for every asset: get the project, call one pipeline stage, return its summary."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import dagster as dg
from pydantic import Field

from assets.code_versions import code_version
from assets.failures import explained
from assets.metadata import result
from assets.pages import links
from assets.resources import Project
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace

OWNERS = ["team:uniphy-lab"]
Stage = Callable[[Workspace, ExperimentConfig], StageSummary]


class Start(dg.Config):
    """Whether hours of work were meant."""

    start: bool = Field(
        default=False,
        description="true: do it, for hours. false: nothing is done, so that *Materialize all* is safe.",
    )


def stage_asset(
    stage: Stage,
    *,
    group: str,
    description: str,
    deps: Sequence[dg.AssetsDefinition] = (),
    kinds: Iterable[str] = (),
    name: str | None = None,
    pool: str | None = None,
    by_hand: bool = False,
) -> dg.AssetsDefinition:
    """Return an asset that runs `stage` and shows its summary.

    Parameters
    ----------
    by_hand : run only where the run config says ``start: true``; else materialise nothing and say so
    """
    asset_name = name or stage.__name__
    decorate = dg.asset(
        name=asset_name,
        group_name=group,
        deps=list(deps),
        kinds=set(kinds),
        owners=OWNERS,
        description=description,
        code_version=code_version(stage.__module__),
        pool=pool,
        output_required=not by_hand,
    )

    def materialized(project: Project) -> dg.MaterializeResult:
        with explained(asset_name):
            workspace, experiment = project.workspace(), project.config()
            summary = stage(workspace, experiment)
            return result(summary, experiment.name, links(workspace) if summary.stage == "report" else {})

    def run(project: Project) -> dg.MaterializeResult:
        return materialized(project)

    def run_if_asked(
        context: dg.AssetExecutionContext, config: Start, project: Project
    ) -> Iterator[dg.MaterializeResult]:
        if config.start:
            yield materialized(project)
        else:
            context.log.info(
                "%s takes hours and was not asked for: set start to true in this asset's run config.",
                asset_name,
            )

    return decorate(run_if_asked if by_hand else run)
