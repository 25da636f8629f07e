"""Two epochs of mt_pcs on the planted cohort in bfloat16 autocast beside float32: why float32 is the default."""

import dataclasses
import json
import math

import pytest
import torch

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.splits import Splits
from pipeline.experiments import EXPERIMENTS, experiment
from pipeline.store.embeddings import EmbeddingStore
from pipeline.training import hardware
from pipeline.training.method import train
from pipeline.training.run import TrainingRun

pytestmark = [
    # RMSNorm's float32 scale meets bfloat16 under autocast: PyTorch tells once that it takes the unfused way.
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),
]
PARITY = 0.01
"""What issue 13 asks of a default: relative difference of every epoch's losses."""
LINES = {"mean_steps": (20.0, 60.0), "reader_width": 8}
"""No experiment's networks have them today; the options are there, and their states must keep float32."""
APART = "measured on the planted cohort: training losses are 1.6 to 8 % apart after one and two epochs"


def losses(tiny, folder, **how) -> list[float]:
    """Return each epoch's training loss and mean validation error."""
    place = tiny.workspace
    training = dataclasses.replace(tiny.config.training, epochs=2, **how)
    result = train(
        "mt_pcs", AlignedCohort.load(place.aligned), EmbeddingStore.open(place.store),
        LabScaler.from_json(json.loads(place.scaler.read_text())), Splits.load(place.splits),
        dataclasses.asdict(tiny.config.model) | dict(LINES, d_model=32), training, folder,
    )  # fmt: skip
    assert len(result.epochs) == 2
    return [loss for row in result.epochs for loss in (row["loss"], row["selection_error"])]


@pytest.fixture
def autocast_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same layers, casts and regions as on a GPU; another library's products, and no TF32."""
    step = TrainingRun._step
    monkeypatch.setattr(
        TrainingRun,
        "_step",
        lambda self, state: dataclasses.replace(step(self, state), bfloat16=self.config.amp is True),
    )


def test_a_model_with_running_means_trains_in_bfloat16(tiny, tmp_path, autocast_on_cpu) -> None:
    """It ended in an error of the kernel's: the means began in bfloat16, where their state is float32."""
    assert LINES["mean_steps"]
    assert all(map(math.isfinite, losses(tiny, tmp_path, amp=True, device="cpu")))


@pytest.mark.xfail(reason=APART, strict=True)
@pytest.mark.parametrize("fit_lines", [True, False])
def test_autocast_on_a_cpu_has_the_losses_of_float32(tiny, tmp_path, autocast_on_cpu, fit_lines) -> None:
    """Where this comes to hold, bfloat16 may be the default on GPUs: see the next test, and run it there."""
    exact, fast = (
        losses(tiny, tmp_path / str(amp), amp=amp, device="cpu", fit_lines=fit_lines) for amp in (False, True)
    )
    assert fast == pytest.approx(exact, rel=PARITY)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.xfail(reason=APART + ", on a CPU; nobody has measured a GPU's", strict=False)
@pytest.mark.parametrize("fit_lines", [True, False])
def test_autocast_on_a_gpu_has_the_losses_of_float32_there(tiny, tmp_path, fit_lines) -> None:
    exact, fast = (
        losses(tiny, tmp_path / str(amp), amp=amp, device="cuda", fit_lines=fit_lines)
        for amp in (False, True)
    )
    assert fast == pytest.approx(exact, rel=PARITY)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_experiment_trains_in_bfloat16_unasked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "fast_precision", lambda device: "bfloat16")
    assert not hardware.uses_bfloat16(experiment(name).training, torch.device("cuda", 0))
