"""The method page's figures: ``python -m docs.tools.figures`` writes them anew into docs/images.

Curves are computed by the product's own kernels and filters, from fixed seeds; diagrams are drawn.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from docs.tools.diagrams import pieces, two_stages
from kernels.selective_scan import selective_scan
from models.assimilation.known import Result
from models.assimilation.parameters import FilterParameters
from models.assimilation.tracker import LabTracker
from pipeline.report.style import BLUE, GREEN, INK, ORANGE, SOFT, new_figure, quiet_grid, styled, to_svg

IMAGES = Path(__file__).parents[1] / "images"
HOUR_US = 3_600_000_000
STEPS_AN_HOUR = 120
FILTER = FilterParameters.of(
    drift_hours=10.0, offset_drift_hours=6.0, drift_variance=0.6, level_variance=0.4, offset_variance=0.15,
    offset_drift_variance=0.05, draw_noise=0.03, reading_noise=0.25, gain=0.8, draw_mean=0.0, reading_mean=0.0,
)  # fmt: skip
"""A lab that drifts within ten hours, and a waveform that says half of it."""


def scan_states() -> str:
    """Return what three initial states do to the same inputs, and how long a state lasts by its step size."""
    with styled():
        figure = new_figure(7.4, 2.9)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        hours = np.arange(4 * STEPS_AN_HOUR) / STEPS_AN_HOUR
        for start, colour in ((1.5, BLUE), (0.0, INK), (-1.5, ORANGE)):
            label = f"h\u2080 = {start:g}"
            left.plot(hours, _scanned(len(hours), start), color=colour, linewidth=1.4, label=label)
        left.set(title="One state, three starts, the same inputs", xlabel="hours", ylabel="state h")
        left.legend(loc="upper right", ncols=3)
        left.set_ylim(-1.5, 2.3)
        hours = np.geomspace(0.05, 72, 200)
        for step, colour in ((2e-4, BLUE), (1e-3, GREEN), (1e-2, ORANGE)):
            left_over = np.exp(-step * STEPS_AN_HOUR * hours)
            right.plot(hours, left_over, color=colour, linewidth=1.4, label=f"\u03b4 = {step:g}")
        right.set(
            title="How much of h\u2080 is left, A = \u22121",
            xlabel="hours",
            ylabel="weight exp(A \u03a3\u03b4)",
        )
        right.set_xscale("log")
        right.set_xticks([0.1, 1, 10, 72], ["0.1", "1", "10", "72"])
        right.legend(loc="lower left")
        quiet_grid(left, "y")
        quiet_grid(right, "y")
        return to_svg(figure)


def _scanned(steps: int, start: float) -> np.ndarray:
    """Return one state of one channel over time, under a pulse of inputs at each half hour."""
    u = torch.zeros(1, 1, steps)
    u[..., :: STEPS_AN_HOUR // 2] = torch.tensor([3.0, -2.0, 4.0, 1.0, -3.0, 2.0, 3.0, -2.0])
    ones = torch.ones(1, 1, steps)
    y = selective_scan(
        u, 0.012 * ones, -0.6 * torch.ones(1, 1), 10 * ones, ones,
        initial_state=torch.full((1, 1, 1), start), backend="reference",
    )  # fmt: skip
    assert isinstance(y, torch.Tensor)
    return y[0, 0].numpy()


def assimilation_course() -> str:
    """Return a planted lab, its draws, the readings, and what the filter makes of them as they come."""
    truth, reading, draws = _planted(24 * 6, seed=3)
    tracker = LabTracker(FILTER)
    mean, spread = [], []
    for step in range(len(truth)):
        now = (step + 1) * HOUR_US // 6
        tracker.add_reading(now, float(reading[step]))
        if step in draws:
            tracker.add_result(Result(sampled_us=now, available_us=now, value=draws[step]))
        estimate = tracker.estimate(now)
        mean.append(estimate.mean)
        spread.append(1.645 * np.sqrt(estimate.variance))
    hours, middle, half = (np.arange(len(truth)) + 1) / 6, np.array(mean), np.array(spread)
    with styled():
        figure = new_figure(7.4, 2.9)
        axes = figure.subplots()
        axes.fill_between(hours, middle - half, middle + half, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(
            hours, middle, color=BLUE, linewidth=1.5, label="estimate, with 90 % of the lab's own variance"
        )
        axes.plot(hours, truth, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label="planted lab")
        axes.plot(hours, reading, ".", color=SOFT, markersize=3, alpha=0.6, label="reading of ten minutes")
        times = np.array(sorted(draws))
        axes.plot((times + 1) / 6, [draws[t] for t in times], "o", color=ORANGE, markersize=6, label="result")
        axes.set(xlabel="hours", ylabel="lab, standardised", xlim=(0, 24))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=4, handletextpad=0.5)
        quiet_grid(axes, "y")
        return to_svg(figure)


def _planted(steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, dict[int, float]]:
    """Return a lab by `FILTER`, a reading every ten minutes, and five draws by step."""
    rng = np.random.default_rng(seed)
    kept = np.exp(-1 / 6 / float(FILTER.drift_hours))
    drift = np.zeros(steps)
    for step in range(1, steps):
        drift[step] = kept * drift[step - 1] + rng.normal(
            0, np.sqrt(float(FILTER.drift_variance) * (1 - kept**2))
        )
    lab = drift + rng.normal(0, np.sqrt(float(FILTER.level_variance)))
    reading = float(FILTER.gain) * lab + 0.4 + rng.normal(0, np.sqrt(float(FILTER.reading_noise)), steps)
    draws = {step: float(lab[step] + rng.normal(0, 0.17)) for step in (17, 47, 83, 101, 131)}
    return lab, reading, draws


FIGURES: dict[str, Callable[[], str]] = {
    "two_stages": two_stages,
    "pieces": pieces,
    "scan_states": scan_states,
    "assimilation": assimilation_course,
}
"""By the name of the file."""


def write(folder: Path = IMAGES) -> None:
    """Write every figure."""
    for name, draw in FIGURES.items():
        (folder / f"{name}.svg").write_text(whole_file(draw()))


def whole_file(element: str) -> str:
    """Return a figure as a file of its own, which a page shows as an image."""
    if "xmlns=" not in element.partition(">")[0]:
        element = element.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return element.rstrip() + "\n"


if __name__ == "__main__":
    write()
