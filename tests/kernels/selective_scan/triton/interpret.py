"""Run the checks of the Triton kernels in the interpreter; print each one's error, or null, as JSON."""

import json

from checks import checks

from kernels.selective_scan.triton import backend as triton_backend
from kernels.selective_scan.triton import tiling as triton_tiling

SHIPPED = ("scan ragged", "scan bf16")
"""Checks in chunks of the shipped size; the others take short chunks, four times as fast here, and more of them."""


def set_chunks(steps, segment):
    triton_tiling.STEPS = triton_backend.STEPS = steps
    triton_tiling.SEGMENT = segment


def main():
    report, shipped = {}, (triton_tiling.STEPS, triton_tiling.SEGMENT)
    for name, check in checks("cpu", large=False).items():
        set_chunks(*(shipped if name in SHIPPED else (8, 8)))
        try:
            check()
        except AssertionError as error:
            report[name] = str(error) or "an assertion without a message"
        else:
            report[name] = None
    print(json.dumps(report))


if __name__ == "__main__":
    main()
