"""A short training run on the tiny cohort, and what tests read off it."""

from pipeline.testing.cohort import TINY_MODEL
from pipeline.training.checkpoints import load_model
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

CONFIG = TrainingConfig(
    epochs=2, batch_pieces=4, learning_rate=1e-2, warmup_epochs=1.0, tensorboard=False, device="cpu"
)


LINES = {"slow_features": 3, "mean_steps": (5.0, 20.0), "history_skip": True, "reader_width": 4}


def run(cohort, out, method="mt_pcs", config=CONFIG, progress=None, **model):
    """Train a tiny model on a tiny cohort."""
    return train(
        method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL) | model, config, out,
        progress,
    )  # fmt: skip


def losses(result):
    """Return the loss of every epoch."""
    return [row["loss"] for row in result.epochs]


def weights(folder):
    """Return the bytes of every tensor of a saved model."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_model(folder).model.state_dict().items()}
