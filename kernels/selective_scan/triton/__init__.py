"""Backend `triton`: the GPU kernels, their tiling and tuning.

In: checked operands on a GPU, or anywhere under Triton's interpreter.
Out: outputs, states, gradients, the same at every repetition.
Never: an atomic addition, a measurement in the middle of a training.
"""

__all__ = ["backend", "convolution", "tuning"]
