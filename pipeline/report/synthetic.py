"""What a reader must know where a synthetic cohort is judged: how far labs follow the pulse, and what is possible."""

from dataclasses import dataclass

import pandas as pd

from pipeline.foundation.number_format import number
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS


@dataclass(frozen=True, kw_only=True)
class SyntheticCohort:
    """A cohort of ours.

    Attributes
    ----------
    coupling : 0..1, how far labs follow the physiology that the pulse shows
    real_labs : the labs are a hospital's, the waveforms alone are planted
    oracle : ``protocol, lab, r2`` of the best estimate that anyone could make, from the true physiology, on the same
        draws; None: not known
    """

    coupling: float
    real_labs: bool = False
    oracle: pd.DataFrame | None = None

    def banner(self) -> str:
        """Say so, in numbers."""
        who = "Real labs with planted waveforms: no PPG of these patients exists." if self.real_labs else (
            "Synthetic cohort: no patient, and no evidence about patients."
        )  # fmt: skip
        coupling = (
            f"Labs follow the physiology behind the pulse at coupling {self.coupling:g} (0 not, 1 wholly)."
        )
        return " ".join([who, coupling, *self._oracle_sentences()])

    def _oracle_sentences(self) -> list[str]:
        table = self.oracle
        if table is None or table.empty:
            return []
        told = []
        for protocol in (name for name in PROTOCOLS if name in set(table["protocol"])):
            r2 = table.loc[table["protocol"] == protocol].set_index("lab")["r2"].to_dict()
            cells = [f"{lab} {number(r2[lab])}" for lab in LAB_NAMES if lab in r2]
            told.append(f"{protocol}: {', '.join(cells)}")
        return [
            "The oracle, which is told that physiology itself and the same results, does the best that anyone could, "
            f"but for luck; its R2 on these draws, {'; '.join(told)}."
        ]
