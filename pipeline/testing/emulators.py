"""A small emulator by hand, for tests: no encoder runs and nothing is fitted."""

import numpy as np

from pipeline.emulation.model import Emulator, EmulatorKey

HANDMADE_KEY = EmulatorKey(
    encoder_name="handmade", weights_hash="0" * 64, preprocessing_version="windows-1-test", readout="last",
    projection="none", precision="float32", parameters_sha256="1" * 64,
)  # fmt: skip


def handmade_emulator(
    *, width: int = 6, key: EmulatorKey = HANDMADE_KEY, inputs: int = 8, seed: int = 0
) -> Emulator:
    """Return an emulator whose mean follows its inputs and whose residual has both parts."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return Emulator(
        key=key,
        layers=((normal(inputs, 16) / 3, normal(16) / 3), (normal(16, width) / 4, normal(width))),
        input_mean=np.full(inputs, 0.5, np.float32),
        input_sd=np.full(inputs, 0.25, np.float32),
        fresh=0.3 * normal(width, width),
        lasting=0.4 * normal(2, width),
        constant=np.array([0.25, 0.75], np.float32),
        time_constant_steps=40.0,
        concentration=np.linspace(0.3, 0.9, 11, dtype=np.float32),
    )
