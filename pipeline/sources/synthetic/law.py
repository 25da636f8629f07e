"""The law of a planted cohort as one linear Gaussian model: every latent process, the pulse's shape, and the labs.

A shape parameter, mapped back through its squashing, is the patient's own offset plus a weighted sum of latents; a
latent is a patient's level plus an Ornstein-Uhlenbeck process; a lab's score follows its latent by the coupling and a
process of its own for the rest. So state and observations are jointly Gaussian, with numbers that stand in the
cohort's parameters, and one filter (``ideal_filter``) is the best reader there can be.

Left out, and small: latents are a line between grid points of five minutes, and a laboratory's rounding is taken for
noise of the same variance.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.linalg import block_diag

from pipeline.foundation.errors import ConfigError
from pipeline.sources.synthetic.parameters import CohortParameters, LabProcess


@dataclass(frozen=True, kw_only=True)
class LinearLaw:
    """Stationary processes and what is seen of them, on the scale of scores and of the shape's drivers.

    Attributes
    ----------
    covariance : of the states at any time
    time_constant_hours : of each state; inf: constant within a patient. States of different ones are independent
    shape : the pulse's shape, one row a parameter, of the states
    lab : a draw without its noise, one row a lab
    lab_noise : variance of a draw's noise, a lab
    window_noise : covariance of what is new in every window's reading of the shape; 0: the true shape
    """

    covariance: Float[np.ndarray, "states states"]
    time_constant_hours: Float[np.ndarray, " states"]
    shape: Float[np.ndarray, "shapes states"]
    lab: Float[np.ndarray, "labs states"]
    lab_noise: Float[np.ndarray, " labs"]
    window_noise: Float[np.ndarray, "shapes shapes"]


@dataclass(frozen=True, kw_only=True)
class ReadingErrors:
    """How what is read of the shape errs: reading = shape + constant + drift + noise.

    Attributes
    ----------
    constant : covariance of a patient's own lasting error
    drift : of an Ornstein-Uhlenbeck error with time constant `drift_hours`
    window : of what is new in every window; the mean of n windows has one n-th of it
    """

    constant: Float[np.ndarray, "shapes shapes"]
    drift: Float[np.ndarray, "shapes shapes"]
    drift_hours: float
    window: Float[np.ndarray, "shapes shapes"]


def cohort_law(parameters: CohortParameters, coupling: float, null: str | None) -> LinearLaw:
    """Return the law of a cohort.

    Parameters
    ----------
    coupling : 0..1, already 0 in the nulls
    null : None, "a", or "b": draws that nothing tells, no patient's offset in the shape

    Raises
    ------
    ConfigError : a coupling outside 0..1
    """
    if not 0 <= coupling <= 1:
        raise ConfigError(f"coupling {coupling!r} must lie in 0..1")
    labs, names = list(parameters.labs.values()), parameters.latent_names
    variance, hours = map(list, zip(*(pair for lab in labs for pair in _process(lab)), strict=True))
    # Latent i is the sum of states 2 i and 2 i + 1; after the labs' come the shared ones, a state each, then the rest.
    own = np.kron(np.eye(len(labs)), np.ones(2))
    shared = list(parameters.shared_time_constants_hours.values())
    latent = np.asarray(block_diag(own, np.eye(len(shared))))
    loadings = np.array(
        [[spec.loadings.get(name, 0.0) for name in names] for spec in parameters.morphology.values()]
    )
    offsets = [0.0 if null == "b" else spec.offset_sd**2 for spec in parameters.morphology.values()]
    shape = np.hstack([loadings @ latent, np.eye(len(offsets)), np.zeros((len(offsets), own.shape[1]))])
    tie, rest = (0.0, 0.0) if null == "b" else (coupling, np.sqrt(1 - coupling**2))
    score = np.hstack(
        [tie * latent[: len(labs)], np.zeros((len(labs), len(offsets))), rest * own]
    )  # z of each lab
    signal = np.sqrt([1 - lab.noise_share for lab in labs])
    noise = np.array([lab.noise_share for lab in labs])
    law = LinearLaw(
        covariance=np.diag([*variance, *np.ones(len(shared)), *offsets, *variance]),
        time_constant_hours=np.array([*hours, *shared, *np.full(len(offsets), np.inf), *hours]),
        shape=shape,
        lab=signal[:, None] * score,
        lab_noise=np.ones(len(labs)) if null == "b" else noise,
        window_noise=np.zeros((len(offsets), len(offsets))),
    )
    return _seen_alone(law)


def _seen_alone(law: LinearLaw) -> LinearLaw:
    """Return the law without states that neither shape nor labs see: at coupling 1 no lab has a process of its own."""
    seen = (law.shape != 0).any(axis=0) | (law.lab != 0).any(axis=0)
    return replace(
        law, covariance=law.covariance[np.ix_(seen, seen)], time_constant_hours=law.time_constant_hours[seen],
        shape=law.shape[:, seen], lab=law.lab[:, seen],
    )  # fmt: skip


def _process(lab: LabProcess) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return variance and time constant of a lab's level and of its Ornstein-Uhlenbeck part."""
    return (lab.patient_share, np.inf), (1 - lab.patient_share, lab.time_constant_hours)


def with_errors(law: LinearLaw, errors: ReadingErrors) -> LinearLaw:
    """Return the law of readings that err: the errors' lasting parts are states of their own."""
    shapes, labs = len(law.shape), len(law.lab)
    lasting = block_diag(errors.constant, errors.drift)
    hours = np.repeat([np.inf, errors.drift_hours], shapes)
    return replace(
        law,
        covariance=block_diag(law.covariance, lasting),
        time_constant_hours=np.append(law.time_constant_hours, hours),
        shape=np.hstack([law.shape, np.eye(shapes), np.eye(shapes)]),
        lab=np.hstack([law.lab, np.zeros((labs, 2 * shapes))]),
        window_noise=errors.window,
    )
