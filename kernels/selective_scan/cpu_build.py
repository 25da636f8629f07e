"""Build the CPU kernels at first use."""

import ctypes


class BuildError(RuntimeError):
    """The CPU kernels could not be built on this machine; the message says what to do."""


def load_library() -> ctypes.CDLL:
    """Return the compiled kernels."""
    raise BuildError("not built yet")
