"""One shape for every asset: get the project, call one pipeline stage, return its summary."""

from collections.abc import Callable, Iterable, Sequence

import dagster as dg

from assets.code_versions import code_version
from assets.failures import explained
from assets.metadata import result
from assets.resources import Project
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace

OWNERS = ["team:uniphy-lab"]
Stage = Callable[[Workspace, ExperimentConfig], StageSummary]


def stage_asset(
    stage: Stage,
    *,
    group: str,
    description: str,
    deps: Sequence[dg.AssetsDefinition] = (),
    kinds: Iterable[str] = (),
    name: str | None = None,
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """Return an asset that runs `stage` and shows its summary."""
    asset_name = name or stage.__name__

    @dg.asset(
        name=asset_name,
        group_name=group,
        deps=list(deps),
        kinds=set(kinds),
        owners=OWNERS,
        description=description,
        code_version=code_version(stage.__module__),
        pool=pool,
    )
    def run(project: Project) -> dg.MaterializeResult:
        with explained(asset_name):
            return result(stage(project.workspace(), project.config()))

    return run
