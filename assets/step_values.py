"""What steps hand to each other (keyed patient hashes and counts), as JSON: nothing is ever unpickled."""

import json
from typing import Any

import dagster as dg
from upath import UPath


class JsonStepValues(dg.UPathIOManager):
    """One JSON file a value, in Dagster's own storage folder."""

    extension: str | None = ".json"

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        """Write a value that JSON can hold."""
        path.write_text(json.dumps(obj))

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """Read it back."""
        return json.loads(path.read_text())


@dg.io_manager
def json_step_values(context: dg.InitResourceContext) -> JsonStepValues:
    """Keep step values where Dagster keeps its runs; machines that share work share this folder."""
    instance = context.instance
    if instance is None:
        raise dg.DagsterInvariantViolationError("step values need a Dagster instance")
    return JsonStepValues(base_path=UPath(instance.storage_directory()))
