"""What a model does on the validation patients, and when a difference between two models counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from pipeline.cohort.aligned import AlignedCohort
from pipeline.training.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Mean absolute errors on the scaled axis.

    Attributes
    ----------
    errors : keyed "protocol/lab"; empty without examples
    shares : each validation patient's part of `error`; they add up to it
    """

    errors: dict[str, float]
    shares: Float[np.ndarray, " patients"]

    @property
    def error(self) -> float | None:
        """What selects the epoch: the mean over protocols and labs."""
        return sum(self.errors.values()) / len(self.errors) if self.errors else None


def validation_examples(
    aligned: AlignedCohort,
    patients: Sequence[str],
    protocols: Sequence[str],
    labs: Sequence[str],
    ranks: Ranks,
    *,
    twin: bool,
) -> pd.DataFrame:
    """Return this rank's part of the validation patients' draws; a twin's only patient has none."""
    frame = aligned.examples
    chosen = frame["protocol"].isin(protocols) & frame["lab"].isin(labs)
    chosen &= frame["patient_id"].isin([] if twin and len(patients) < 2 else patients)
    pieces = ranks.share(list(dict.fromkeys(frame.loc[chosen, "piece_id"])))
    return frame.loc[chosen & frame["piece_id"].isin(pieces)].reset_index(drop=True)


def validation_of(
    rows: pd.DataFrame,
    protocols: Sequence[str],
    labs: Sequence[str],
    patients: Sequence[str],
    ranks: Ranks,
    device: torch.device,
) -> Validation:
    """Sum up this rank's examples, and those of all ranks.

    Parameters
    ----------
    rows : protocol, lab, patient_id and absolute error of each example of this rank
    patients : all validation patients, alike on every rank
    """
    keys = [(protocol, lab) for protocol in protocols for lab in labs]
    groups = rows.groupby(["protocol", "lab", "patient_id"])["error"].agg(["sum", "count"])
    wanted = pd.MultiIndex.from_tuples([(*key, patient) for key in keys for patient in patients])
    table = groups.reindex(wanted, fill_value=0.0).to_numpy(dtype=float).reshape(len(keys), len(patients), 2)
    total = ranks.sum(torch.tensor(table, dtype=torch.float64, device=device)).cpu().numpy()
    count = total[..., 1].sum(axis=1)
    seen = count > 0
    means = total[seen, :, 0] / count[seen, None]
    named = [f"{protocol}/{lab}" for (protocol, lab), any_ in zip(keys, seen, strict=True) if any_]
    errors = dict(zip(named, means.sum(axis=1).tolist(), strict=True))
    return Validation(errors=errors, shares=means.sum(axis=0) / max(1, len(named)))


def clearly_positive(gains: Float[np.ndarray, " groups"]) -> bool:
    """Tell whether the mean gain of independent groups is more than its standard error.

    The one-standard-error rule (Breiman and others, 1984): the simpler of two models stays unless the other is
    clearly better.
    """
    if len(gains) < 2:
        return False
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)))
