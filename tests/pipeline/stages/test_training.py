"""What a person at a terminal sees of a training: all batches of a model, from where a resumed run begins."""

from pipeline.foundation.progress import Bar, Meter
from pipeline.stages.training import _batch_counter
from pipeline.training.config import TrainingProgress


def told(epoch: int, batch: int, part: str = "all") -> TrainingProgress:
    return TrainingProgress(
        method="st_pcs", part=part, epoch=epoch, epochs=4, batch=batch, batches=10, loss=0.1, lab_losses={},
        validation=None, busy_share=None, steps_per_second=None,
    )  # fmt: skip


def test_the_bar_counts_all_batches_of_a_model_and_begins_anew_with_the_next() -> None:
    bar = Bar("training", "batches", Meter(None))
    count = _batch_counter(bar)
    count(told(2, 3))  # resumed after the first epoch
    assert (bar.meter.done, bar.meter.total) == (13, 40)
    first = bar.meter
    count(told(2, 4))
    assert bar.meter is first
    assert bar.meter.done == 14
    count(told(1, 1, part="sodium"))
    assert bar.meter is not first
    assert (bar.meter.done, bar.meter.total) == (1, 40)
