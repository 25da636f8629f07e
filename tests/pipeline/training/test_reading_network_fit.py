"""Networks that read the waveform: they learn what a line cannot, of patients whom they have not seen."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.foundation.errors import CheckpointError, OtherRunError
from pipeline.training.kept_networks import KeptNetworks
from pipeline.training.patient_errors import ErrorCovariance, whitened
from pipeline.training.reading_network_config import ReadingNetworkShape
from pipeline.training.reading_network_fit import Recording, _whitening, cross_fit_networks
from pipeline.training.ten_minute_means import BLOCK_US, BlockMeans

SHAPE = ReadingNetworkShape(
    folds=2, d_model=16, n_blocks=1, d_state=4, dropout=0.0, epochs=25, learning_rate=1e-2
)
QUICK = ReadingNetworkShape(folds=2, d_model=8, n_blocks=1, d_state=2, epochs=1)
CPU = torch.device("cpu")


def recording(number: int, n: int = 40, draws: int = 12, scale: float = 1.0) -> Recording:
    """One patient, whose lab is the product of two features: no line can read it."""
    rng = np.random.default_rng(number)
    features = rng.normal(size=(n, 3))
    step = np.sort(rng.choice(n, draws, replace=False))
    ends = (np.arange(n, dtype=np.int64) + 1) * BLOCK_US
    return Recording(
        blocks=BlockMeans(end_us=ends, mean=features), step=step, lab=np.zeros(draws, np.int64), hours=step / 6,
        target=scale * features[step, 0] * features[step, 1], fold=number % 2,
    )  # fmt: skip


def weights(network: torch.nn.Module) -> list[list[float]]:
    return [tensor.flatten().tolist() for tensor in network.state_dict().values()]


def test_they_learn_what_no_line_can_and_read_patients_whom_they_have_not_seen() -> None:
    recordings = [recording(number) for number in range(40)]
    networks, read = cross_fit_networks(recordings, SHAPE, 2, 0, CPU)
    truth = np.concatenate([one.target for one in recordings])
    said = np.concatenate([own[one.step, 0] for own, one in zip(read, recordings, strict=True)])
    assert 1 - np.square(said - truth).mean() / truth.var() > 0.5
    assert len(networks) == 2
    assert all(own.shape == (40, 2) for own in read)


def test_under_the_errors_covariance_they_learn_what_moves_and_not_whose_draw_it_is() -> None:
    """Each patient has a level of their own, far above what the features tell."""
    recordings = [recording(number) for number in range(40)]
    levels = np.random.default_rng(0).normal(scale=3.0, size=40)
    shown = [
        dataclasses.replace(one, target=one.target + level)
        for one, level in zip(recordings, levels, strict=True)
    ]
    errors = ErrorCovariance(noise=0.02, drift=1e-4, level=0.98, drift_hours=5.0)

    def moves(told: ErrorCovariance | None) -> float:
        _, read = cross_fit_networks(shown, SHAPE, 2, 0, CPU, errors=lambda _: [told, None])
        pairs = [(one.target, own[one.step, 0]) for own, one in zip(read, recordings, strict=True)]
        truth, said = (
            np.concatenate([each - each.mean() for each in side]) for side in zip(*pairs, strict=True)
        )
        return float(np.corrcoef(truth, said)[0, 1])

    assert moves(errors) > 0.6
    assert moves(errors) > moves(None) + 0.1


def test_errors_are_made_independent_lab_by_lab() -> None:
    rng = np.random.default_rng(0)
    one = dataclasses.replace(
        recording(0),
        lab=np.repeat([0, 2, 3], [5, 3, 4]),
        hours=rng.uniform(0, 9, 12),
        target=rng.normal(size=12),
    )
    known = ErrorCovariance(noise=0.2, drift=0.3, level=0.5, drift_hours=4.0)
    made = _whitening(one, [known, known, None, known])
    assert [len(square) for square in made] == [5, 3, 4]
    np.testing.assert_array_equal(made[1], np.eye(3))
    for square, rows in zip(made, np.split(np.arange(12), [5, 8]), strict=True):
        if square is not made[1]:
            expected = whitened(known, one.target[rows, None], one.hours[rows], np.zeros(len(rows), int))[
                :, 0
            ]
            np.testing.assert_allclose(square @ one.target[rows], expected, atol=1e-5)


def test_each_network_asks_for_the_covariance_that_its_own_patients_tell() -> None:
    asked = []
    cross_fit_networks(
        [recording(number) for number in range(4)],
        QUICK,
        2,
        0,
        CPU,
        errors=lambda fold: asked.append(fold) or [None] * 2,
    )
    assert asked == [0, 1]


def test_a_patients_draws_change_only_networks_that_have_seen_them() -> None:
    before, _ = cross_fit_networks([recording(number) for number in range(6)], QUICK, 2, 0, CPU)
    changed = [recording(number, scale=3.0 if number == 2 else 1.0) for number in range(6)]
    after, _ = cross_fit_networks(changed, QUICK, 2, 0, CPU)
    assert weights(before[0]) == weights(after[0])  # patient 2 is of fold 0
    assert weights(before[1]) != weights(after[1])


def test_a_seed_decides_all_and_the_callers_generator_is_left_alone() -> None:
    recordings = [recording(number) for number in range(6)]
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    first, _ = cross_fit_networks(recordings, QUICK, 2, 0, CPU)
    assert torch.rand(3).tolist() == expected
    again, other = (cross_fit_networks(recordings, QUICK, 2, seed, CPU)[0] for seed in (0, 1))
    assert [weights(network) for network in first] == [weights(network) for network in again]
    assert [weights(network) for network in first] != [weights(network) for network in other]


def test_without_a_draw_they_say_the_mean() -> None:
    empty = [recording(number, draws=0) for number in range(4)]
    _, read = cross_fit_networks(empty, QUICK, 2, 0, CPU)
    assert all((own == 0).all() for own in read)


def test_a_killed_fit_goes_on_with_the_next_network(tmp_path, monkeypatch) -> None:
    recordings = [recording(number) for number in range(6)]
    whole, _ = cross_fit_networks(recordings, QUICK, 2, 0, CPU)
    kept = KeptNetworks(folder=tmp_path / "networks", identity="one")
    trained = []
    monkeypatch.setattr(
        "pipeline.training.reading_network_fit._descend", lambda *_: trained.append(1) or _killed(trained)
    )
    with pytest.raises(KeyboardInterrupt):
        cross_fit_networks(recordings, QUICK, 2, 0, CPU, kept)
    monkeypatch.undo()
    calls = _counted(monkeypatch)
    gone_on, _ = cross_fit_networks(recordings, QUICK, 2, 0, CPU, kept)
    assert len(calls) == 1  # of two
    assert weights(gone_on[1]) == weights(whole[1])
    calls.clear()
    cross_fit_networks(recordings, QUICK, 2, 0, CPU, kept)
    assert not calls


def _killed(trained: list[int]) -> None:
    if len(trained) == 2:
        raise KeyboardInterrupt


def _counted(monkeypatch) -> list[int]:
    from pipeline.training import reading_network_fit as module

    calls, own = [], module._descend
    monkeypatch.setattr(module, "_descend", lambda *given: calls.append(1) or own(*given))
    return calls


def test_networks_of_another_fit_and_damaged_ones_are_refused(tmp_path) -> None:
    recordings = [recording(number) for number in range(4)]
    folder = tmp_path / "networks"
    cross_fit_networks(recordings, QUICK, 2, 0, CPU, KeptNetworks(folder=folder, identity="one"))
    with pytest.raises(OtherRunError, match="unfinished fit with another configuration"):
        cross_fit_networks(recordings, QUICK, 2, 0, CPU, KeptNetworks(folder=folder, identity="two"))
    (folder / "1.safetensors").write_bytes(b"cut short")
    with pytest.raises(
        CheckpointError, match=r"1\.safetensors cannot be gone on from.*delete it to fit anew"
    ):
        cross_fit_networks(recordings, QUICK, 2, 0, CPU, KeptNetworks(folder=folder, identity="one"))
    KeptNetworks(folder=folder, identity="one").clear()
    assert not folder.exists()
    KeptNetworks(folder=folder, identity="one").clear()  # nothing to drop


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("folds", 1),
        ("folds", -2),
        ("epochs", 0),
        ("dropout", 1.0),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        ReadingNetworkShape(**{field: value})
