"""Lines from an encoder's features to labs, and the likelihood that the encoder is trained by.

A lab differs between patients by more than the pulse tells: each patient has a level of its own, which history shows
and no window does. Under plain squared error that level is noise, the larger part of it, and it is the same for all
draws of a patient, so that few patients would drive the encoder. The likelihood here gives each patient and lab a
level of its own, drawn from one normal law (a random intercept; Laird and Ware, Biometrics 1982): what moves within
a patient counts in full, what differs between patients as far as the law of levels lets it. Levels that vary
without limit would leave deviations from the patient's mean alone, levels that do not vary plain squared error.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class LabHeads(nn.Module):
    """One line a lab and fold of patients, fitted elsewhere and held, with the variances that are left around it.

    The line of a fold was fitted without its patients: an encoder that is trained through it cannot please a line
    that has learned the same draws by heart.

    Parameters
    ----------
    width : of the features
    n_labs, n_folds : labs, and folds of patients
    """

    def __init__(self, width: int, n_labs: int, n_folds: int):
        super().__init__()
        self.register_buffer("weights", torch.zeros(n_folds, n_labs, width))
        self.register_buffer("bias", torch.zeros(n_folds, n_labs))
        self.register_buffer("noise", torch.ones(n_labs))
        self.register_buffer("level", torch.zeros(n_labs))
        self.weights: Tensor
        self.bias: Tensor
        self.noise: Tensor
        self.level: Tensor

    def forward(
        self, features: Float[Tensor, "n width"], fold: Int[Tensor, "n labs"]
    ) -> Float[Tensor, "n labs"]:
        """Return each lab on its scaled axis, by the line of the fold that each row belongs to."""
        lab = torch.arange(self.weights.shape[1], device=features.device)
        return torch.einsum("nlw,nw->nl", self.weights[fold, lab], features) + self.bias[fold, lab]

    def loss(
        self,
        estimate: Float[Tensor, "draws labs"],
        target: Float[Tensor, "draws labs"],
        group: Bool[Tensor, "groups draws"],
    ) -> Float[Tensor, ""]:
        """Return the negative log likelihood of a measured value, mean, without its constant.

        Parameters
        ----------
        target : scaled; NaN where the draw has no value of that lab
        group : which draws are of the same patient; each draw is of one group
        """
        known = target.isfinite()
        residual = torch.where(known, estimate - target.nan_to_num(), torch.zeros_like(estimate))
        same = group.to(residual.dtype)
        count, total, squares = same @ known.to(residual.dtype), same @ residual, same @ residual.square()
        ratio = self.level / self.noise
        inside = 1 + count * ratio
        quadratic = (squares - ratio / inside * total.square()) / self.noise
        nll = 0.5 * (count * self.noise.log() + inside.log() + quadratic)
        return nll.sum() / count.sum().clamp(min=1.0)
