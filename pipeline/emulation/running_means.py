"""Does an emulator keep what a method reads over hours? Linear read-outs of the latents from running means.

The check in ``check`` reads bursts, from one window and from ten minutes. Methods read running means of up to hours:
how they come out depends on how fast what lasts in an embedding fades, and that only whole recordings show. Every
latent is known at every window, so that a cohort of which a lab's few draws tell little tells enough here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.emulation.rendered import latents_at
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.synthetic.plan import CohortPlan, plan_patient
from pipeline.store.embeddings import EmbeddingStore

TIME_CONSTANTS = (20.0, 60.0, 240.0)
"""Of the running means, windows (10, 30, 120 min): what the method ``lines`` reads."""
DIVISIONS = 8
_EVERY = 40
"""Windows between two that are read: neighbours tell nearly the same."""
_PENALTY = 1000.0


@dataclass(frozen=True, kw_only=True)
class LatentRow:
    """R2 of one latent on patients that the read-out was not fitted on, means over divisions (and draws).

    Attributes
    ----------
    spread : SD of the difference over the emulator's draws; NaN of one
    """

    latent: str
    rendered: float
    emulated: float
    spread: float


def compare_running_means(
    plan: CohortPlan, rendered: EmbeddingStore, emulated: Sequence[EmbeddingStore]
) -> list[LatentRow]:
    """Read both from the same windows of the same patients, fitted on six of ten and judged on the others.

    Parameters
    ----------
    emulated : one store a draw of the emulator

    Raises
    ------
    StoreError : a store that cannot be read
    """
    patients = list(_patients(plan, rendered))
    latents = [latents for _, latents in patients]
    names = [name for name, _ in patients]
    ours = _r2(_read(rendered, names), latents)
    theirs = np.stack([_r2(_read(store, names), latents) for store in emulated])
    spread = theirs.std(axis=0, ddof=1) if len(theirs) > 1 else np.full(len(ours), np.nan)
    numbers = zip(plan.parameters.latent_names, ours, theirs.mean(axis=0), spread, strict=True)
    return [
        LatentRow(latent=name, rendered=float(a), emulated=float(b), spread=float(c))
        for name, a, b, c in numbers
    ]


def _patients(plan: CohortPlan, store: EmbeddingStore) -> Iterator[tuple[str, np.ndarray]]:
    """Yield id and latents (windows, latents) of every patient of whom there are windows."""
    for patient in range(plan.size.n_patients):
        stay, course = plan_patient(plan, patient)
        name = str(stay.subject_id)
        if name in store:
            yield name, latents_at(course, np.asarray(store.read(name).start_us)[::_EVERY] + WINDOW_US // 2)


def _read(store: EmbeddingStore, names: Sequence[str]) -> list[Float[np.ndarray, "n features"]]:
    return [running_means(np.asarray(store.read(name).embeddings[:], np.float64))[::_EVERY] for name in names]


def running_means(windows: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "n features"]:
    """Return the exponential means of all windows so far, one after another in the columns."""
    from scipy.signal import lfilter  # half a second that Dagster's definitions need not wait for

    means = []
    for time_constant in TIME_CONSTANTS:
        fading = np.array([1.0, -np.exp(-1 / time_constant)])
        weight = lfilter([1.0], fading, np.ones(len(windows)))
        means.append(np.asarray(lfilter([1.0], fading, windows, axis=0)) / np.asarray(weight)[:, None])
    return np.concatenate(means, axis=1)


def _r2(features: Sequence[np.ndarray], latents: Sequence[np.ndarray]) -> Float[np.ndarray, " latents"]:
    found = []
    for division in range(DIVISIONS):
        order = np.random.default_rng(division).permutation(len(features))
        fitted, judged = np.split(order, [round(0.6 * len(order))])
        line = make_pipeline(StandardScaler(), Ridge(alpha=_PENALTY))
        line.fit(*(np.concatenate([part[i] for i in fitted]) for part in (features, latents)))
        held, truth = (np.concatenate([part[i] for i in judged]) for part in (features, latents))
        found.append(r2_score(truth, line.predict(held), multioutput="raw_values"))
    return np.mean(found, axis=0)
