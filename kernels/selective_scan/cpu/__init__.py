"""Backend `cpu`: compiled C++ kernels and their build."""
