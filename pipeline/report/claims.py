"""One rule for every claim of a report: the same statistic, the same interval, corrected alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.evaluation.judge import select
from pipeline.foundation.number_format import counted, short_label
from pipeline.foundation.schema import PROTOCOLS, TWINS

CLAIMED = ("mt_pcs", "mt_assim")
"""Methods that report and stages speak of: the paper's, and ours."""
SIGNIFICANT = 0.05
RULE = (
    "One rule holds for every claim here: the difference in R2 on the same draws, paired by patient; it counts where "
    "its 95 % interval is clear of 0 and p < 0.05 after Holm over the labs."
)
NOT_ESTIMABLE = "not estimable: both give the same estimates"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the rule says of one pair of methods under one protocol.

    Attributes
    ----------
    better, worse : labs on which `method` is shown to be better, or worse, than `other`
    labs : all that were compared
    same : both give the same estimates, and nothing was compared
    """

    method: str
    other: str
    protocol: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    labs: tuple[str, ...]
    same: bool
    rows: pd.DataFrame

    @property
    def of_waveform(self) -> bool:
        """Whether it tells what PPG added."""
        return TWINS.get(self.other) == self.method

    def verdict(self) -> str:
        """Say in words what counts."""
        if self.same:
            return NOT_ESTIMABLE
        worse = f", lower for {listed(self.worse, len(self.labs))}" if self.worse else ""
        return f"R2 higher for {listed(self.better, len(self.labs))}{worse}"


def claim_sentences(found: Sequence[Claim]) -> list[str]:
    """Say what counts, a sentence a pair of methods, its protocols side by side."""
    by_pair: dict[tuple[str, str], list[Claim]] = {}
    for claim in found:
        by_pair.setdefault((claim.method, claim.other), []).append(claim)
    sentences = []
    for (method, other), mine in by_pair.items():
        of_waveform = f"What PPG added to {short_label(method)}"
        about = of_waveform if mine[0].of_waveform else f"{short_label(method)} against {short_label(other)}"
        told = "; ".join(f"{claim.protocol}: {claim.verdict()}" for claim in mine)
        sentences.append(f"{about}. {told}.")
    return sentences


def claims(comparisons: pd.DataFrame | None, methods: Sequence[str] | None = None) -> list[Claim]:
    """Apply the rule to every pair of a comparisons table, what PPG added first.

    Parameters
    ----------
    comparisons : ``evaluation.COMPARISON_COLUMNS``; None or empty: no claim
    methods : only pairs whose first method is one of these; None: all
    """
    if comparisons is None or comparisons.empty:
        return []
    pairs = comparisons.drop_duplicates(["method_a", "method_b"])[["method_a", "method_b"]].to_records(
        index=False
    )
    found = []
    for a, b in sorted(pairs.tolist(), key=lambda pair: TWINS.get(pair[1]) != pair[0]):
        if methods is not None and a not in methods:
            continue
        mine = comparisons.loc[(comparisons["method_a"] == a) & (comparisons["method_b"] == b)]
        for protocol in PROTOCOLS:
            rows = select(mine, protocol=protocol)
            rows = rows.loc[rows["metric"] == "r2"]
            if len(rows):
                found.append(_claim(a, b, protocol, rows))
    return found


def _claim(method: str, other: str, protocol: str, rows: pd.DataFrame) -> Claim:
    certain = rows["p_holm"] < SIGNIFICANT
    return Claim(
        method=method,
        other=other,
        protocol=protocol,
        better=tuple(rows.loc[certain & (rows["lower"] > 0), "lab"]),
        worse=tuple(rows.loc[certain & (rows["upper"] < 0), "lab"]),
        labs=tuple(rows["lab"]),
        same=not len(rows["difference"].dropna()),
        rows=rows,
    )


def listed(labs: Sequence[str], n_labs: int) -> str:
    """Name some of `n_labs` labs."""
    if not labs:
        return f"none of {counted(n_labs, 'labs')}"
    if len(labs) == n_labs:
        return f"all {n_labs} labs" if n_labs > 1 else labs[0]
    return f"{len(labs)} of {n_labs} labs ({', '.join(labs)})"
