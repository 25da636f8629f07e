"""Scored points of ``dense`` scoring: the draws, and the points on the line between two of them.

It is the paper's possible protocol, and always labelled. An interpolated point is scored at the end of its own
window; its truth is the value on the line between two draws, and thus knows the later one: that is why dense
scoring is never the headline. A week has some 74,000 such points a protocol, so they are made piece by piece and
never kept; what is kept are sums (``pipeline.cohort.dense_sums``).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Int8

from pipeline.cohort.aligned import AlignedCohort
from pipeline.foundation.schema import HOUR_US, LAB_NAMES, PROTOCOLS
from pipeline.labs.history import lab_history, last_available_before


@dataclass(frozen=True, kw_only=True)
class DensePoints:
    """The scored points of one piece: lab after lab, of each its draws first.

    Attributes
    ----------
    lab : place in ``schema.LAB_NAMES``, ascending
    sampled_at_us : time of the draw, or end of the interpolated point's window
    step : of the piece; the one whose estimate counts
    truth : clinical units
    """

    lab: Int8[np.ndarray, " n"]
    sampled_at_us: Int[np.ndarray, " n"]
    step: Int[np.ndarray, " n"]
    truth: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.lab)

    def by_lab(self) -> Iterator[tuple[str, slice]]:
        """Yield each lab that has points, and where they lie."""
        yield from slices_by_lab(self.lab)


class PointSource:
    """Makes the scored points of some patients, one piece at a time.

    Parameters
    ----------
    aligned : the cohort
    patients : whose points
    """

    def __init__(self, aligned: AlignedCohort, patients: Iterable[str]) -> None:
        chosen = list(patients)
        self._aligned = aligned
        self.rows = np.flatnonzero(aligned.pieces["patient_id"].isin(chosen))
        """Rows of the patients' pieces in the cohort's ``pieces``, in order."""
        examples = aligned.examples.loc[aligned.examples["patient_id"].isin(chosen)]
        self._draws = {str(piece): rows for piece, rows in examples.groupby("piece_id").indices.items()}
        self._draw_lab = np.array([LAB_NAMES.index(lab) for lab in examples["lab"]], dtype=np.int8)
        self._draw_time, self._draw_step = (
            examples[name].to_numpy(dtype=np.int64) for name in ("sampled_at_us", "step")
        )
        self._draw_truth = examples["truth"].to_numpy(dtype=np.float64)

    def of_piece(self, row: int) -> DensePoints:
        """Return the points of the piece in `row` of the cohort's ``pieces``.

        Interpolated ones count where the piece knows an earlier result of that lab, as draws do. A draw right at
        a window's end stands for the interpolated point there.
        """
        piece = self._aligned.pieces.iloc[row]
        targets = self._aligned.piece_targets(row)
        between = (targets.weight > 0) & ~targets.measured & self._aligned.history_present[row]
        lab, step = np.nonzero(between.T)
        end_us = self._aligned.grid(str(piece["sequence_id"])).end_us[int(piece["first_step"]) + step]
        drawn = self._draws.get(str(piece["piece_id"]), np.empty(0, dtype=np.int64))
        kept = ~_among(lab, end_us, self._draw_lab[drawn], self._draw_time[drawn])
        labs = np.concatenate([self._draw_lab[drawn], lab[kept].astype(np.int8)])
        order = np.argsort(labs, kind="stable")

        def column(of_draws: np.ndarray, of_steps: np.ndarray) -> np.ndarray:
            return np.concatenate([of_draws[drawn], of_steps[kept]])[order]

        return DensePoints(
            lab=labs[order],
            sampled_at_us=column(self._draw_time, end_us),
            step=column(self._draw_step, step),
            truth=column(self._draw_truth, targets.value[step, lab]),
        )

    def each_sequence(self) -> Iterator[tuple[str, pd.DataFrame, DensePoints]]:
        """Yield, of each sequence and protocol: patient, what carried-forward methods read, points.

        The table has a row a point: ``protocol, lab, last_lab, hours_since_last_lab, history_mean, live_last_lab``,
        as ``schema.EXAMPLE_COLUMNS`` has them. Of the points, ``step`` counts from each piece's own first step.
        """
        pieces = self._aligned.pieces.iloc[self.rows]
        groups: dict[tuple[str, str], list[int]] = {}
        for row, key in enumerate(zip(pieces["sequence_id"], pieces["protocol"], strict=True)):
            groups.setdefault(key, []).append(row)
        for rows in groups.values():
            found = [self.of_piece(int(row)) for row in self.rows[rows]]
            place = np.repeat(np.arange(len(found)), [len(points) for points in found])
            order = np.argsort(_joined([points.lab for points in found]), kind="stable")
            points = DensePoints(
                **{
                    name: _joined([getattr(part, name) for part in found])[order]
                    for name in ("lab", "sampled_at_us", "step", "truth")
                }
            )
            if len(points):
                mine = pieces.iloc[rows]
                yield str(mine["patient_id"].iat[0]), self._known(mine, points, place[order]), points

    def _known(self, pieces: pd.DataFrame, points: DensePoints, piece: np.ndarray) -> pd.DataFrame:
        """Return what was known of each point's lab at its piece's t0, and live."""
        series = self._aligned.series[str(pieces["patient_id"].iat[0])]
        t0_us = pieces["t0_us"].to_numpy(dtype=np.int64)
        last, hours, mean, live = (np.full(len(points), np.nan) for _ in range(4))
        for lab, here in points.by_lab():
            history = lab_history(series[lab], t0_us, self._aligned.config.history)
            of_piece, time_us = piece[here], points.sampled_at_us[here]
            last[here], mean[here] = history.last_value[of_piece], history.mean[of_piece]
            hours[here] = (time_us - history.last_sampled_us[of_piece]) / HOUR_US
            live[here] = last_available_before(series[lab], time_us)
        protocol = np.full(len(points), PROTOCOLS.index(str(pieces["protocol"].iat[0])))
        return pd.DataFrame(
            {
                "protocol": pd.Categorical.from_codes(protocol, list(PROTOCOLS)),
                "lab": pd.Categorical.from_codes(points.lab, list(LAB_NAMES)),
                "last_lab": last,
                "hours_since_last_lab": hours,
                "history_mean": mean,
                "live_last_lab": live,
            }
        )


def slices_by_lab(lab: Int8[np.ndarray, " n"]) -> Iterator[tuple[str, slice]]:
    """Yield each lab of an ascending column of places in ``schema.LAB_NAMES``, and where its rows lie."""
    bounds = np.searchsorted(lab, np.arange(len(LAB_NAMES) + 1))
    for name, first, stop in zip(LAB_NAMES, bounds, bounds[1:], strict=False):
        if stop > first:
            yield name, slice(int(first), int(stop))


def _among(
    lab: np.ndarray, time_us: np.ndarray, draw_lab: np.ndarray, draw_time_us: np.ndarray
) -> np.ndarray:
    """Whether each (lab, time) is that of a draw."""
    found = np.zeros(len(lab), dtype=bool)
    for code in np.unique(draw_lab):
        here = lab == code
        found[here] = np.isin(time_us[here], draw_time_us[draw_lab == code])
    return found


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays)
