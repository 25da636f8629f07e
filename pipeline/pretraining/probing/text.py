"""The probe's table for people: one row a read-out, with what the numbers cannot be taken for in words."""

from collections.abc import Sequence

import numpy as np

from pipeline.foundation.number_format import interval, number, signed
from pipeline.pretraining.data import SYNTHETIC_PROBE_SEED
from pipeline.pretraining.probing.rows import BASELINE, TRAINING_MEAN, Interval, PlantedSize, ProbeRow, Score
from pipeline.pretraining.probing.windows import ProbeWindows
from pipeline.sources.bidmc import BIDMC_LICENCE

PLANTED = {
    "modulation": "modulat.", "notch_delay": "n. delay", "notch_depth": "n. depth", "respiration_rate": "respir.",
    "rise_time": "rise t.", "variability": "variab.",
}  # fmt: skip
"""Columns of the planted shape; the heart rate, which every encoder knows, stands in the JSON."""
REAL = {"heart_rate": "heart rate", "respiration_rate": "respiration"}
_RULE = (
    f"Planted pulses are made of such features as {BASELINE} measures: on them it is no rival, but the measure of what "
    "an embedding loses. On real ones it is what a network has to beat."
)


def probe_text(rows: Sequence[ProbeRow], *, planted: str = "", real: str = "") -> str:
    """Return the table, the intervals below it, and the findings in words.

    Parameters
    ----------
    planted, real : which patients the columns are about, in words; empty where there are none
    """
    wide = max(len(row.name) for row in rows)
    parts = []
    if planted:
        shown = [row for row in rows if row.planted]
        parts += [f"Planted shape, R2 of a line from one 30 s window: {planted}", *_planted(shown, wide), ""]
        parts += [f"95 % intervals over the judged patients; (+) and (-): above, below {BASELINE}, paired",
                  *_planted_intervals(shown, wide), ""]  # fmt: skip
    if real:
        shown = [row for row in rows if row.real]
        parts += [f"Real patients, per minute: {real}", *_real(shown, wide), ""]
        parts += [f"Error less than that of {BASELINE}, and than the training mean's, paired (above 0 is better)",
                  *_differences(shown, wide), "", respiration_words(shown)]  # fmt: skip
    return "\n".join([*parts, _RULE]) + "\n"


def respiration_words(rows: Sequence[ProbeRow]) -> str:
    """Say which embeddings read the respiration of real patients: whose error is surely below the training mean's."""
    reading = [
        row.name
        for row in rows
        if row.width
        and (score := row.real.get("respiration_rate"))
        and score.above_mean
        and score.above_mean.low > 0
    ]
    mean = next((row.real["respiration_rate"].mae.value for row in rows if row.name == TRAINING_MEAN), None)
    beside = "" if mean is None else f" (MAE {number(mean)} a minute)"
    if not reading:
        return (
            "Respiration of real patients is read by none: no interval of the error lies below the training mean's"
            f"{beside}."
        )
    return f"Respiration of real patients is read better than by the training mean{beside} from {', '.join(reading)}."


def planted_words(size: PlantedSize, data: ProbeWindows) -> str:
    """Say which planted patients the table is about."""
    use = "the probe's own" if size.seed == SYNTHETIC_PROBE_SEED else "to choose by, not to judge"
    return (
        f"fitted on {size.fitted} planted patients, judged on {size.judged} others, {len(data.samples)} windows, "
        f"seed {size.seed} ({use})"
    )


def real_words(half: str, data: ProbeWindows) -> str:
    """Say which real patients the table is about."""
    which = {"all": "all patients", "choose": "the half to choose by", "judge": "the half to judge by"}[half]
    return (
        f"{which}, {len(np.unique(data.patients))} patients, {len(data.samples)} windows, ten folds by patient; "
        f"{BIDMC_LICENCE}"
    )


def _planted(rows: Sequence[ProbeRow], wide: int) -> list[str]:
    head = (
        f"{'':<{wide}} {'width':>6}"
        + "".join(f"{word:>10}" for word in PLANTED.values())
        + f"{'windows/s':>11}"
    )
    return [head] + [
        f"{row.name:<{wide}} {row.width:>6}"
        + "".join(f"{number(row.planted[target].r2.value):>10}" for target in PLANTED)
        + f"{row.windows_per_second or 0:>11,.0f}"
        for row in rows
    ]


def _planted_intervals(rows: Sequence[ProbeRow], wide: int) -> list[str]:
    head = f"{'':<{wide}}" + "".join(f"{word:>18}" for word in PLANTED.values())
    return [head] + [
        f"{row.name:<{wide}}" + "".join(f"{_with_mark(row.planted[target]):>18}" for target in PLANTED)
        for row in rows
    ]


def _with_mark(score: Score) -> str:
    mark = (
        ""
        if score.gain is None
        else " (+)"
        if score.gain.low > 0
        else " (-)"
        if score.gain.high < 0
        else " ( )"
    )
    return interval(score.r2.low, score.r2.high, 2) + mark


def _real(rows: Sequence[ProbeRow], wide: int) -> list[str]:
    head = f"{'':<{wide}} {'width':>6}" + "".join(f"{f'{word} MAE':>32}{'R2':>22}" for word in REAL.values())
    lines = [head]
    for row in rows:
        cells = "".join(
            f"{_full(row.real[target].mae):>32}{_full(row.real[target].r2):>22}" for target in REAL
        )
        lines.append(f"{row.name:<{wide}} {row.width or '':>6}{cells}")
    return lines


def _differences(rows: Sequence[ProbeRow], wide: int) -> list[str]:
    head = f"{'':<{wide}}" + "".join(
        f"{f'{word}: {BASELINE}':>36}{'training mean':>26}" for word in REAL.values()
    )
    lines = [head]
    for row in rows:
        cells = "".join(f"{_signed(row.real[t].gain):>36}{_signed(row.real[t].above_mean):>26}" for t in REAL)
        lines.append(f"{row.name:<{wide}}{cells}")
    return lines


def _full(it: Interval) -> str:
    return f"{number(it.value)} {interval(it.low, it.high, 2)}"


def _signed(it: Interval | None) -> str:
    return "" if it is None else f"{signed(it.value, 2)} {interval(it.low, it.high, 2)}"
