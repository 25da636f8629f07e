"""Group train: one asset a method."""

from functools import partial, update_wrapper

import dagster as dg

from assets.cohort import lab_alignment, normalization_stats
from assets.common import Stage, stage_asset
from pipeline import stages

READING = (
    "\n\nOpen *loss curve* below to see whether training has settled. **validation error of what is kept** chose "
    "the epoch: the mean absolute error over the labs, on a scale where 1 is the range of a lab among training "
    "patients; *Plots* shows it over the runs of each experiment. **best epoch, kept** is 0 where no epoch was clearly "
    "better than lines fitted before training (training.fit_lines). An interrupted training goes on where it was."
)
DESCRIPTIONS = {
    "lstm": "Shared LSTM over the ten latest windows (5 min), five heads, no history: the paper's baseline.",
    "mt": "Multi-task Mamba without patient conditioning (initial state zero).",
    "mt_learned": "Multi-task Mamba whose initial state is a learned constant.",
    "st_pcs": "Single-task Mamba with patient-conditioned initial state, one model per lab.",
    "mt_pcs": "Multi-task Mamba with patient-conditioned initial state: the paper's method.",
    "mt_pcs_twin": "The same, trained and scored with another patient's waveform: what history alone achieves.",
}
FITTED = {
    "lines": "Each lab's line through running means of the waveform and its own history, in closed form: what needs no "
    "network.",
    "mt_assim": "Assimilation: one Kalman filter a lab over every result and ten-minute readings of the waveform, "
    "fitted by likelihood.",
    "mt_assim_twin": "The same, fitted and scored with another patient's waveform: what results alone achieve.",
    "mt_assim_lines": "The same without the networks that read the waveform beside the lines: what they add.",
}
FITTED_READING = (
    "\n\nFitted in one go on training patients, without gradients. **validation error of what is kept** is the mean "
    "absolute error over the labs, on a scale where 1 is the range of a lab among training patients, as for networks."
)


def _stage(method: str) -> Stage:
    return update_wrapper(partial(stages.train, method=method), stages.train)


def _training_asset(method: str) -> dg.AssetsDefinition:
    return stage_asset(
        _stage(method),
        name=f"train_{method}",
        group="train",
        deps=[lab_alignment, normalization_stats],
        kinds={"pytorch"},
        pool="training",
        description=FITTED[method] + FITTED_READING if method in FITTED else DESCRIPTIONS[method] + READING,
    )


training_assets = {method: _training_asset(method) for method in (*DESCRIPTIONS, *FITTED)}
