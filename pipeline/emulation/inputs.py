"""What the emulator knows of a window: the pulse's seven shape parameters and how noisy the signal is."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32

from pipeline.sources.synthetic.parameters import CohortParameters


def signal_inputs(
    parameters: CohortParameters,
    morphology: Mapping[str, Float[np.ndarray, " n"]],
    noise_share: Float[np.ndarray, " n"],
) -> Float32[np.ndarray, "n inputs"]:
    """Return the emulator's inputs: each shape parameter's place between its bounds, and the noise's logarithm.

    Parameters
    ----------
    morphology : from ``physiology.morphology_at``, each in its own unit
    noise_share : SD of the noise over the pulse's amplitude; absolute amplitude is removed before any encoder
    """
    columns = []
    for name, spec in parameters.morphology.items():
        value = morphology[name]
        if spec.geometric:
            columns.append(np.log(value / spec.low) / np.log(spec.high / spec.low))
        else:
            columns.append((value - spec.low) / (spec.high - spec.low))
    return np.stack([*columns, np.log10(noise_share)], axis=1).astype(np.float32)
