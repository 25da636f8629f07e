"""Dagster's face of the pipeline: an asset makes one ``pipeline.stages`` call and shows its summary.

In: what the environment says of folders and experiment.
Out: the definitions: assets, checks, jobs, sensors, schedules.
Never: domain logic, torch before a run.
"""

from assets.definitions import defs as defs
