"""``python -m assets demo``: the whole job through Dagster, in this process, with readable progress; ``ui``: pages."""

import sys
import time

import dagster as dg

from assets.definitions import defs
from assets.resources import Project
from assets.training import training_assets
from assets.ui import run_ui
from pipeline import stages


def main(arguments: list[str]) -> int:
    """Run the demo, or serve Dagster and the report's pages until Ctrl-C."""
    if arguments == ["ui"]:
        return run_ui()
    if arguments == ["demo"]:
        return demo()
    sys.stderr.write("usage: python -m assets demo | ui\n")
    return 2


def demo() -> int:
    """Materialise everything up to the report, print the comparison table and where the report lies."""
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
    workspace = project.workspace()
    sys.stdout.write(f"\nReport: {workspace.report}\nOne page to print: {workspace.one_page}\n")
    sys.stdout.write(f"Finished in {minutes:.1f} minutes. See it in Dagster: make ui\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
