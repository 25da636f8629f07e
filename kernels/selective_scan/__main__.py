"""``python -m kernels.selective_scan``: make ready what the first call would wait for (`make setup` does).

Builds the CPU kernels; and, where there is a GPU, tries whether both designs of the Triton kernels agree there, and
measures which tiling of the first is fastest (about a minute, most of it the compiler's).
"""

import importlib.util
import sys

import torch

from .backends import resolve_backend


def main() -> None:
    """Build, measure, and say what was chosen."""
    backend = resolve_backend("auto", torch.device("cpu"))
    sys.stdout.write(f"selective scan on this machine's CPU: backend {backend}\n")
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return
    from .triton.agreement import refused, try_designs
    from .triton.tuning import tune

    device = torch.device("cuda", torch.cuda.current_device())
    apart = ", ".join(f"{dtype}: {far:.1e}" for dtype, far in try_designs(device).items())
    chosen = "DISAGREE: the first, slower one computes" if refused(device) else "agree"
    sys.stdout.write(f"{torch.cuda.get_device_name()}: the two designs {chosen} ({apart} apart)\n")
    for dtype in (torch.float32, torch.bfloat16):
        times = tune(device, dtype)
        sys.stdout.writelines(
            f"{torch.cuda.get_device_name()}, {dtype}: {1e3 * seconds:.2f} ms with {choice}\n"
            for choice, seconds in sorted(times.items(), key=lambda item: item[1])
        )


if __name__ == "__main__":
    main()
