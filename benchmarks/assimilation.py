"""Cases of assimilation: patients times steps, beside a plain loop and statsmodels' compiled Kalman filter.

All compute the same predicted means and variances, in float64, of the same draws and readings; a peer that does not is
not timed. The plain loop is what a textbook gives: one patient, one step, small numpy matrices.
"""

import importlib.util
from functools import partial

import numpy as np
import torch

from benchmarks.driver import Case, Provider
from models.assimilation.events import DRAW, Events, pack_rows
from models.assimilation.lab_filter import LabFilters
from models.assimilation.parameters import FilterParameters
from models.assimilation.scan import filter_events, log_likelihood
from models.testing.planted_labs import TYPICAL, planted_row, repeated

TOLERANCE = 1e-9
WEIGHT = 0.03


def events_of(patients: int, hours: float) -> Events:
    """Return planted patients with a reading every ten minutes and a draw every six hours."""
    rng = np.random.default_rng(0)
    return pack_rows([planted_row(rng, TYPICAL, hours, int(hours / 6)) for _ in range(patients)])


def ours(events: Events) -> tuple[torch.Tensor, torch.Tensor]:
    """Return means and variances before every step."""
    with torch.no_grad():
        filtered = filter_events(repeated(TYPICAL, events.kind.shape[1]), events)
    return filtered.mean, filtered.variance


def _matrices(events: Events, row: int) -> tuple[np.ndarray, ...]:
    """Return what textbooks call F, Q (diagonals), h, r and the value above its mean, of every step of a row."""
    p = {name: float(getattr(TYPICAL, name)[0]) for name in TYPICAL.__dataclass_fields__}
    hours = events.elapsed_hours[:, row].numpy()
    draw = (events.kind[:, row] == DRAW).numpy()
    one = np.ones(len(hours))
    kept = np.stack(
        [np.exp(-hours / p["drift_hours"]), one, one, np.exp(-hours / p["offset_drift_hours"])], axis=1
    )
    prior = np.array(
        [p["drift_variance"], p["level_variance"], p["offset_variance"], p["offset_drift_variance"]]
    )
    level = np.where(draw, 1.0, p["gain"])
    h = np.stack([level, level, 1.0 - draw, 1.0 - draw], axis=1)
    target = events.value[:, row].numpy() - np.where(draw, p["draw_mean"], p["reading_mean"])
    return kept, prior * (1 - kept**2), h, np.where(draw, p["draw_noise"], p["reading_noise"]), target, prior


def plain_loop(events: Events) -> tuple[torch.Tensor, torch.Tensor]:
    """Filter one patient after the other, one step after the other."""
    seen = events.seen.numpy()
    means, variances = np.zeros(seen.shape), np.zeros(seen.shape)
    for row in range(seen.shape[1]):
        kept, gained, h, noise, target, prior = _matrices(events, row)
        x, covariance = np.zeros(4), np.diag(prior)
        for j in range(len(seen)):
            transition = np.diag(kept[j])
            x, covariance = transition @ x, transition @ covariance @ transition.T + np.diag(gained[j])
            means[j, row] = float(TYPICAL.draw_mean) + x[0] + x[1]
            variances[j, row] = covariance[0, 0] + 2 * covariance[0, 1] + covariance[1, 1]
            if seen[j, row]:
                gain = covariance @ h[j] / (h[j] @ covariance @ h[j] + noise[j])
                x = x + gain * (target[j] - h[j] @ x)
                left = np.eye(4) - np.outer(gain, h[j])
                covariance = left @ covariance @ left.T + noise[j] * np.outer(gain, gain)
    return torch.from_numpy(means), torch.from_numpy(variances)


def statsmodels_filter(events: Events) -> tuple[torch.Tensor, torch.Tensor]:
    """Filter one patient after the other with statsmodels' compiled filter, all its matrices given by step."""
    from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

    seen = events.seen.numpy()
    means, variances = np.zeros(seen.shape), np.zeros(seen.shape)
    for row in range(seen.shape[1]):
        kept, gained, h, noise, target, prior = _matrices(events, row)
        peer = KalmanFilter(k_endog=1, k_states=4)
        peer.bind(np.where(seen[:, row], target, np.nan)[:, None])
        after = np.concatenate([kept[1:], np.ones((1, 4))]), np.concatenate([gained[1:], np.zeros((1, 4))])
        peer["transition"], peer["state_cov"] = (np.einsum("tk,kl->klt", x, np.eye(4)) for x in after)
        peer["selection"] = np.eye(4)
        peer["design"], peer["obs_cov"] = h.T[None], noise[None, None]
        peer.initialize_known(np.zeros(4), np.diag(prior))
        state = peer.filter()
        x, covariance = state.predicted_state[:, :-1], state.predicted_state_cov[..., :-1]
        means[:, row] = float(TYPICAL.draw_mean) + x[0] + x[1]
        variances[:, row] = covariance[0, 0] + 2 * covariance[0, 1] + covariance[1, 1]
    return torch.from_numpy(means), torch.from_numpy(variances)


def disagreement(peer, events: Events) -> str:
    """Return why a peer must not be timed: it computes something else; empty if it does not."""
    differs = [
        name
        for name, mine, other in zip(("mean", "variance"), ours(events), peer(events), strict=True)
        if float(((mine - other) * events.seen).abs().max()) > TOLERANCE
    ]
    return f"not measured: differs from ours in {', '.join(differs)}" if differs else ""


def gradient(events: Events) -> torch.Tensor:
    """Return the gradient of the likelihood by the eleven numbers, through the scan's own adjoint."""
    axis = TYPICAL.axis.requires_grad_()
    parameters = FilterParameters.from_axis(axis.expand(events.kind.shape[1], -1))
    log_likelihood(filter_events(parameters, events), events, WEIGHT)[0].sum().backward()
    assert axis.grad is not None
    return axis.grad


def gradient_by_autograd(events: Events) -> torch.Tensor:
    """Return the same gradient through every operation of every step, as autograd keeps them."""
    from kernels.kalman_scan import predicted, updated

    axis = TYPICAL.axis.requires_grad_()
    p = FilterParameters.from_axis(axis.expand(events.kind.shape[1], -1))
    mean, covariance = torch.zeros_like(p.prior), torch.diag_embed(p.prior.T).permute(1, 2, 0)
    total, one = torch.zeros((), dtype=torch.float64), torch.ones_like(p.gain)
    for j in range(len(events.kind)):
        draw, seen = events.kind[j] == DRAW, events.seen[j]
        hours = events.elapsed_hours[j]
        kept = torch.stack(
            [torch.exp(-hours / p.drift_hours), one, one, torch.exp(-hours / p.offset_drift_hours)]
        )
        gained = p.prior[[0, 3]] * (1 - kept[[0, 3]].square())
        mean, covariance = predicted(mean, covariance, kept, gained)
        level, own = torch.where(draw, 1.0, p.gain), (~draw).double()
        h = torch.stack([level, level, own, own])
        noise = torch.where(draw, p.draw_noise, p.reading_noise)
        target = events.value[j] - torch.where(draw, p.draw_mean, p.reading_mean)
        spread = torch.where(seen, ((covariance * h[:, None]).sum(0) * h).sum(0) + noise, 1.0)
        score = (2 * torch.pi * spread).log() + (target - (h * mean).sum(0)).square() / spread
        total = total - 0.5 * (score * (WEIGHT + (1 - WEIGHT) * draw.double()) * seen).sum()
        mean, covariance = updated(mean, covariance, h, noise, target, seen.double())
    total.backward()
    assert axis.grad is not None
    return axis.grad


def one_by_one(events: Events) -> None:
    """Filter one patient step by step, as a bedside does."""
    filters = LabFilters.of(TYPICAL)
    state = filters.start()
    for j in range(len(events.kind)):
        state = filters.predict(state, float(events.elapsed_hours[j, 0]))
        filters.estimate(state)
        state = filters.update(state, events.value[j], draw=bool(events.kind[j, 0] == DRAW))


def _filtering(patients: int, hours: float, *, loop: bool = True) -> list[Provider]:
    events = events_of(patients, hours)
    few = events.take(torch.arange(min(3, patients)))
    made = [Provider(name="ours", run=partial(ours, events))]
    if loop:
        check = partial(disagreement, plain_loop, few)
        made.append(
            Provider(name="plain Python loop", run=partial(plain_loop, events), rounds=1, check=check)
        )
    if importlib.util.find_spec("statsmodels") is None:
        return [*made, Provider(name="statsmodels", reason="not measured: statsmodels is not installed")]
    check = partial(disagreement, statsmodels_filter, few)
    return [
        *made,
        Provider(name="statsmodels", run=partial(statsmodels_filter, events), rounds=2, check=check),
    ]


def _gradients(patients: int, hours: float) -> list[Provider]:
    events = events_of(patients, hours)

    def check() -> str:
        few = events.take(torch.arange(min(3, patients)))
        same = torch.allclose(gradient(few), gradient_by_autograd(few), rtol=1e-8, atol=1e-8)
        return "" if same else "not measured: another gradient"

    peer = partial(gradient_by_autograd, events)
    return [
        Provider(name="ours", run=partial(gradient, events)),
        Provider(name="autograd through the steps", run=peer, rounds=2, check=check),
    ]


def _bedside() -> list[Provider]:
    events = events_of(1, 168.0)
    return [Provider(name="ours", run=partial(one_by_one, events))]


CASES = [
    Case(name="filter 100 patients x 1036 steps", providers=partial(_filtering, 100, 168.0)),
    Case(name="gradient 100 patients x 1036 steps", providers=partial(_gradients, 100, 168.0)),
    Case(name="bedside 1 patient x 1036 steps", providers=_bedside),
    Case(name="filter 1000 patients x 1036 steps", providers=partial(_filtering, 1000, 168.0, loop=False)),
]
