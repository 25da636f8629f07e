"""Does an emulator keep what the probe reads? Linear read-outs of emulated beside rendered windows.

Both are read by ridge regression fitted on one half of the check's patients and judged on the other: from one
window, from the mean of ten minutes (which shows that what lasts, lasts as long), and, across, emulated
windows' read-outs judged on rendered ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.emulation.model import Emulator
from pipeline.emulation.rendered import BurstPlan, RenderedWindows
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.synthetic.parameters import CohortParameters

CHECK_BURSTS = BurstPlan(patients=400, bursts=4, burst_windows=20, hours=24.0, seed=20_160_002)
TOLERANCE = 0.03
"""Largest difference in R2 of a good emulator: our decision (docs/rehearsal.md)."""
_PENALTY = 30.0


@dataclass(frozen=True, kw_only=True)
class ReadoutRow:
    """R2 of one target, on patients that the read-out was not fitted on.

    Attributes
    ----------
    target : a shape parameter of the pulse, or a latent
    window_rendered, window_emulated : from one window
    mean_rendered, mean_emulated : from the mean of ten minutes
    across : read-out fitted on emulated windows, judged on rendered ones
    """

    target: str
    window_rendered: float
    window_emulated: float
    mean_rendered: float
    mean_emulated: float
    across: float

    @property
    def difference(self) -> float:
        """The larger of both differences; what a read-out that is worse than the mean tells counts as 0."""
        window = max(self.window_emulated, 0.0) - max(self.window_rendered, 0.0)
        mean = max(self.mean_emulated, 0.0) - max(self.mean_rendered, 0.0)
        return window if abs(window) > abs(mean) else mean


def compare_readouts(windows: RenderedWindows, emulator: Emulator, *, seed: int = 0) -> list[ReadoutRow]:
    """Emulate the very windows that were rendered, and read both."""
    emulated = _emulated(windows, emulator, np.random.default_rng(seed))
    rendered = windows.embeddings.astype(np.float64)
    names, targets = _targets(windows)
    patients = np.unique(windows.patient)
    fitted = np.isin(windows.patient, patients[::2])
    group = _ten_minutes(windows)
    fitted_mean = _grouped(fitted.astype(float)[:, None], group)[:, 0] > 0
    target_mean, real_mean, drawn_mean = (_grouped(x, group) for x in (targets, rendered, emulated))
    columns = [
        _r2(rendered, targets, fitted),
        _r2(emulated, targets, fitted),
        _r2(real_mean, target_mean, fitted_mean),
        _r2(drawn_mean, target_mean, fitted_mean),
        _r2(emulated, targets, fitted, judged_on=rendered),
    ]
    return [
        ReadoutRow(
            target=name, window_rendered=a, window_emulated=b, mean_rendered=c, mean_emulated=d, across=e
        )
        for name, a, b, c, d, e in zip(names, *columns, strict=True)
    ]


def readout_table(rows: Sequence[ReadoutRow]) -> str:
    """Return the comparison as text of fixed width."""
    head = f"{'':<18}{'one window':^22}{'ten minutes':^22}{'emulated read-out':>20}"
    lines = [head, f"{'R2':<18}" + f"{'rendered':>11}{'emulated':>11}" * 2 + f"{'on rendered':>20}"]
    for row in rows:
        values = (row.window_rendered, row.window_emulated, row.mean_rendered, row.mean_emulated)
        lines.append(
            f"{row.target:<18}" + "".join(f"{value:>11.3f}" for value in values) + f"{row.across:>20.3f}"
        )
    worst = max(rows, key=lambda row: abs(row.difference))
    lines.append(f"largest difference: {worst.difference:+.3f} ({worst.target}; at most {TOLERANCE} is good)")
    return "\n".join(lines)


def _emulated(
    windows: RenderedWindows, emulator: Emulator, rng: np.random.Generator
) -> Float[np.ndarray, "n width"]:
    drawn = np.empty(windows.embeddings.shape)
    for record in np.unique(windows.record):
        rows = np.flatnonzero(windows.record == record)
        step = windows.start_us[rows] // WINDOW_US
        drawn[rows] = emulator.draw(windows.inputs[rows], step - step[0], rng).astype(np.float16)
    return drawn


def _targets(windows: RenderedWindows) -> tuple[list[str], np.ndarray]:
    parameters = CohortParameters.load()
    shapes = len(parameters.morphology)
    names = [*parameters.morphology, *(f"latent {name}" for name in parameters.latent_names)]
    return names, np.concatenate([windows.inputs[:, :shapes], windows.latents], axis=1).astype(np.float64)


def _ten_minutes(windows: RenderedWindows) -> np.ndarray:
    block = windows.record * 2**32 + windows.start_us // (20 * WINDOW_US) % 2**32
    return np.unique(block, return_inverse=True)[1]


def _grouped(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    sums = np.zeros((group.max() + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return sums / np.bincount(group)[:, None]


def _r2(x: np.ndarray, y: np.ndarray, fitted: np.ndarray, judged_on: np.ndarray | None = None) -> list[float]:
    """Return R2 of each column of `y` by ridge regression on standardised `x`."""
    line = make_pipeline(StandardScaler(), Ridge(alpha=_PENALTY)).fit(x[fitted], y[fitted])
    held = (x if judged_on is None else judged_on)[~fitted]
    return np.asarray(r2_score(y[~fitted], line.predict(held), multioutput="raw_values")).tolist()
