"""Under which conditions the recovery experiment trains and judges every method, in both regimes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.evaluation.recovery import LEARNED, MODEL, OUR_LINES, OUR_TWIN, OURS, TWIN, ZERO_H0

OF_CHANCE = (MODEL, TWIN, ZERO_H0, "lines", OURS, OUR_TWIN)
"""Trained once a seed of the condition; other methods once. Chance are the networks' weights and order of patients, the
weights of the reader beside `lines`, and whose waveform a twin gets."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One training of every method.

    Attributes
    ----------
    coupling : 0..1, how far labs follow what the pulse wave shows
    null : None, "a" (coupling 0) or "b" (draws independent in time, no patient offset)
    train_share : share of the training patients that are used
    most_judged : test patients who judge, at most, and as large a part of the validation patients, who choose epochs;
        the same ones for every `train_share`; None: all
    cohort_share : size of the cohort, as a share of the experiment's
    seeds : training seeds, all on one cohort
    emulated : whether embeddings are drawn by the encoder's emulator, and no waveform is made
    methods : trained where nobody says which
    """

    name: str
    coupling: float
    null: str | None = None
    train_share: float = 1.0
    most_judged: int | None = None
    cohort_share: float = 1.0
    seeds: int = 1
    emulated: bool = False
    methods: tuple[str, ...] = LEARNED

    def described(self) -> dict[str, Any]:
        """Return what decides a training and its scores: neither how many seeds nor which methods there are."""
        plain = {name: value for name, value in asdict(self).items() if name not in ("seeds", "methods")}
        if self.most_judged is None:  # as it was written before it could be another
            del plain["most_judged"]
        return plain | {"seeds": 1}

    def runs(self, method: str) -> range:
        """Return the training seeds of a method."""
        return range(self.seeds if method in OF_CHANCE else 1)


CONDITIONS = (
    Condition(name="coupling 1", coupling=1.0),
    Condition(name="coupling 0 (null A)", coupling=0.0, null="a", seeds=3),
    Condition(name="coupling 0.5", coupling=0.5),
    Condition(name="coupling 1, half", coupling=1.0, train_share=0.5),
    Condition(name="coupling 1, quarter", coupling=1.0, train_share=0.25),
    Condition(name="null B", coupling=0.0, null="b", cohort_share=0.5, seeds=3),
)
"""Of the regime `short`; the most telling first, so that an interrupted run has shown something."""

_EMULATED = Condition(
    name="emulated, coupling 1", coupling=1.0, most_judged=75, seeds=2, emulated=True,
    methods=tuple(method for method in LEARNED if method != "lstm"),
)  # fmt: skip
_PART = replace(_EMULATED, seeds=1, methods=tuple(m for m in _EMULATED.methods if m != OUR_LINES))
LONG_CONDITIONS = (
    Condition(name="rendered, coupling 1", coupling=1.0, seeds=5),
    Condition(name="rendered, coupling 0 (null A)", coupling=0.0, null="a", seeds=5),
    _EMULATED,
    replace(_PART, name="emulated, coupling 1, a third", train_share=1 / 3),
    replace(_PART, name="emulated, coupling 1, 16 %", train_share=0.16),
)
"""Of the regime `long`: 600, 200 and 96 of 600 training patients with emulated embeddings, and 75 of 300 test patients,
whose weeks hold 1,300 (lactate) to 2,300 draws of a lab: what three hours on two cores allow, and one seed of parts."""

REGIMES: Mapping[str, tuple[Condition, ...]] = {"short": CONDITIONS, "long": LONG_CONDITIONS}
