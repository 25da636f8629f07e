"""The likelihood with a level for each patient is that of a multivariate normal, and lines belong to folds."""

import torch

from models.encoders.lab_heads import LabHeads

PATIENT = torch.tensor([0, 0, 0, 1, 1, 2])
GROUP = torch.arange(3)[:, None] == PATIENT


def heads(noise: tuple[float, ...], level: tuple[float, ...]) -> LabHeads:
    made = LabHeads(width=3, n_labs=len(noise), n_folds=2)
    made.noise.copy_(torch.tensor(noise))
    made.level.copy_(torch.tensor(level))
    return made


def test_the_loss_is_the_density_of_levels_and_noise() -> None:
    torch.manual_seed(0)
    noise, level = (0.5, 1.3), (2.0, 0.1)
    estimate, target = torch.randn(2, 6, 2, dtype=torch.float32)
    target[4, 0] = torch.nan
    expected = 0.0
    for lab in range(2):
        for patient in range(3):
            rows = (patient == PATIENT) & target[:, lab].isfinite()
            n = int(rows.sum())
            covariance = noise[lab] * torch.eye(n) + level[lab]
            law = torch.distributions.MultivariateNormal(estimate[rows, lab], covariance)
            expected -= float(law.log_prob(target[rows, lab])) + n * 0.5 * float(
                torch.log(torch.tensor(2 * torch.pi))
            )
    loss = heads(noise, level).loss(estimate, target, GROUP)
    torch.testing.assert_close(float(loss), expected / 11, atol=1e-5, rtol=1e-5)


def test_wide_levels_leave_deviations_from_the_patients_mean_and_none_leave_squared_error() -> None:
    torch.manual_seed(1)
    estimate, target = torch.randn(2, 6, 1)
    shifted = estimate + torch.tensor([3.0, -2.0, 0.5])[PATIENT][:, None]
    for level, same in ((1e4, True), (0.0, False)):
        made = heads((1.0,), (level,))
        losses = [float(made.loss(one, target, GROUP)) for one in (estimate, shifted)]
        assert (abs(losses[1] - losses[0]) < 1e-2) == same
    expected = 0.5 * (estimate - target).square().mean()
    torch.testing.assert_close(heads((1.0,), (0.0,)).loss(estimate, target, GROUP), expected)


def test_each_draw_is_read_by_the_line_of_its_fold() -> None:
    made = heads((1.0, 1.0), (0.0, 0.0))
    made.weights.copy_(torch.arange(12.0).reshape(2, 2, 3))
    made.bias.copy_(torch.tensor([[0.0, 100.0], [200.0, 300.0]]))
    features = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    fold = torch.tensor([[0, 1], [1, 0]])
    assert made(features, fold).tolist() == [[0.0, 309.0], [207.0, 104.0]]
    assert list(made.parameters()) == []
