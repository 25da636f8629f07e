"""Units of the five labs and their factors to the schema's units: the one place that converts."""

import pandas as pd

UNIT_FACTORS: dict[str, dict[str, float]] = {
    "potassium": {"mmol/l": 1.0, "meq/l": 1.0},
    "sodium": {"mmol/l": 1.0, "meq/l": 1.0},
    "calcium": {"mg/dl": 1.0, "mmol/l": 4.008, "meq/l": 2.004, "mg/l": 0.1},
    "glucose": {"mg/dl": 1.0, "mmol/l": 18.016, "mg/l": 0.1, "g/l": 100.0},
    "lactate": {"mmol/l": 1.0, "meq/l": 1.0, "mg/dl": 1 / 9.008, "mg/l": 1 / 90.08},
}
"""value in the schema's unit = value as given * factor; keys are lab, then `normalise_unit` of the unit.

Molar masses in g/mol: calcium 40.08, glucose 180.16, lactic acid 90.08; calcium carries two charges.
"""


def normalise_unit(unit: str) -> str:
    """Bring spellings together: case, blanks, "per" and brackets do not matter."""
    text = unit.strip().casefold().replace(" ", "").replace("per", "/")
    return text.strip("[]{}")


def factor(lab: str, unit: str) -> float | None:
    """Factor from `unit` to the schema's unit of `lab`; None where the pair is unknown.

    Examples
    --------
    >>> factor("glucose", "mmol/L")
    18.016
    >>> factor("sodium", "mg/dL") is None
    True
    """
    return UNIT_FACTORS.get(lab, {}).get(normalise_unit(unit))


def in_own_unit(value: pd.Series, lab: pd.Series, unit: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Convert results to their labs' own units.

    Returns
    -------
    The values, and the factor that each was multiplied by; both NaN where lab and unit do not go together.
    """
    pairs = pd.MultiIndex.from_arrays([lab.astype(str), unit.astype(str)])
    factors = {(name, given): factor(name, given) for name, given in pairs.unique()}
    multiplier = pd.Series([factors[pair] for pair in pairs], index=value.index, dtype=float)
    return value * multiplier, multiplier
