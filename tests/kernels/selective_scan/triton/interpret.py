"""Run the checks of the Triton kernels in the interpreter; print each one's error, or null, as JSON."""

import json
import sys
import time

import triton.language as tl
from checks import checks

from kernels.selective_scan import operators as scan_operators
from kernels.selective_scan.triton import backend as triton_backend
from kernels.selective_scan.triton import tiling as triton_tiling
from kernels.selective_scan.triton.lanes import carry as lanes_carry
from kernels.selective_scan.triton.lanes import plan as lanes_plan

SHIPPED = (
    "scan ragged",
    "scan two_warps",
    "scan wide_pack",
    "scan state_17",
    "scan state_17_bf16",
    "rewritten bounds",
)
"""Checks in sizes as shipped: of the second design, several warps a program, four steps at once, sequences that are
whole or end anywhere, cut or not, packs, masks and groups. The others take short chunks (first design), and save a
state every eighth step and read one chunk ahead of the carry (lanes): four times as fast here, and more chunks."""
SHORT = (8, 8, tl.constexpr(1), 1, 32)


def set_sizes(steps, segment, ahead, at_once, threads):
    triton_tiling.STEPS = triton_backend.STEPS = steps
    triton_tiling.SEGMENT, lanes_carry.AHEAD, lanes_plan.AT_ONCE = segment, ahead, at_once
    lanes_plan.THREADS = threads
    scan_operators._kinds.passed.clear()


def main():
    report = {}
    shipped = (
        triton_tiling.STEPS, triton_tiling.SEGMENT, lanes_carry.AHEAD, lanes_plan.AT_ONCE, lanes_plan.THREADS
    )  # fmt: skip
    for name, check in checks("cpu", large=False).items():
        set_sizes(*(shipped if name in SHIPPED else SHORT))
        start = time.perf_counter()
        try:
            check()
        except AssertionError as error:
            report[name] = str(error) or "an assertion without a message"
        else:
            report[name] = None
        sys.stderr.write(f"{name}: {time.perf_counter() - start:.1f} s\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
