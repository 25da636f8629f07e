"""Backend `triton`: the GPU kernels, their tiling and tuning."""
