"""Backend `cpu`: compiled C++ kernels and their build.

In: checked operands on the CPU.
Out: outputs, states, gradients; the library, built once for this machine.
Never: a check of what a caller gave, a pool of threads that outlives a call.
"""

__all__ = ["backend", "build", "convolution"]
