"""``python -m kernels.selective_scan``: build the CPU kernels now instead of at first use (`make setup` does)."""

import sys

import torch

from kernels.selective_scan.backends import resolve_backend

if __name__ == "__main__":
    backend = resolve_backend("auto", torch.device("cpu"))
    sys.stdout.write(f"selective scan on this machine's CPU: backend {backend}\n")
