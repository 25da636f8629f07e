"""``python -m assets demo``: the whole job through Dagster, in this process, with readable progress."""

import sys
import time

import dagster as dg

from assets.definitions import defs
from assets.resources import Project
from assets.training import training_assets
from pipeline import stages


def main(arguments: list[str]) -> int:
    """Materialise everything up to the report, print the comparison table and where the report lies."""
    if arguments != ["demo"]:
        sys.stderr.write("usage: python -m assets demo\n")
        return 2
    began = time.monotonic()
    project = Project()
    job = defs.resolve_job_def("everything")
    unused = {
        asset.key for method, asset in training_assets.items() if method not in project.config().methods
    }
    outcome = job.execute_in_process(
        asset_selection=sorted(set(job.asset_layer.executable_asset_keys) - unused),
        instance=dg.DagsterInstance.get(),
        run_config={"loggers": {"console": {}}},
        raise_on_error=False,
    )
    if not outcome.success:
        sys.stderr.write("The demo stopped; run it again and it goes on where it was.\n")
        return 1
    sys.stdout.write(stages.printed_table(project.workspace(), project.config()))
    minutes = (time.monotonic() - began) / 60
    sys.stdout.write(f"\nReport: {project.workspace().report}\nFinished in {minutes:.1f} minutes.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
