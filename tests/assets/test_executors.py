"""Executors by name, and the documented Kubernetes configuration against Dagster's own schema."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.executors import EXECUTORS, chosen_executor
from pipeline.foundation.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "kubernetes"


@pytest.mark.parametrize("name", ["in_process", "forkserver"])
def test_executors_are_chosen_by_name(monkeypatch, name: str) -> None:
    monkeypatch.setenv("UNIPHY_EXECUTOR", name)
    assert chosen_executor().name == name


def test_an_unknown_executor_is_named_with_the_known_ones(monkeypatch) -> None:
    monkeypatch.setenv("UNIPHY_EXECUTOR", "cluster")
    with pytest.raises(ConfigError, match="'cluster'; choose one of in_process, forkserver, kubernetes"):
        chosen_executor()


def test_the_documented_executor_configuration_fits_the_schema() -> None:
    pytest.importorskip("dagster_k8s", reason="dagster-k8s is an extra")

    @dg.op
    def nothing() -> None: ...

    @dg.job(executor_def=EXECUTORS["kubernetes"]())
    def job() -> None:
        nothing()

    config = yaml.safe_load((EXAMPLES / "run.yaml").read_text())
    execution = {"execution": config["execution"]}
    assert dg.validate_run_config(job, execution)
    broken = {"execution": {"config": {**config["execution"]["config"], "job_image": 3}}}
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, broken)


def test_the_documented_instance_configuration_fits_the_schema(tmp_path: Path) -> None:
    k8s = pytest.importorskip("dagster_k8s", reason="dagster-k8s is an extra")
    from dagster._config import process_config, resolve_to_config_type

    launcher = yaml.safe_load((EXAMPLES / "dagster.yaml").read_text())["run_launcher"]
    assert (launcher["module"], launcher["class"]) == ("dagster_k8s", "K8sRunLauncher")
    schema = resolve_to_config_type(k8s.K8sRunLauncher.config_type())
    assert process_config(schema, launcher["config"]).success
    assert not process_config(schema, launcher["config"] | {"no_such_field": 1}).success


@pytest.mark.parametrize(
    "path", [ROOT / "scripts" / "dagster.yaml", EXAMPLES / "dagster.yaml"], ids=["local", "kubernetes"]
)
def test_instance_files_fit_the_schema_of_dagster(path: Path, tmp_path: Path) -> None:
    from dagster._core.instance.config import dagster_instance_config

    (tmp_path / "dagster.yaml").write_text(path.read_text())
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["telemetry"] == {"enabled": False}
