"""What the GPU scan's kernels are made of: ``python -m benchmarks.scan_code [90]``, for sm_90; no GPU is needed.

Every kernel that a scan of 16 states launches is compiled ahead of time, through Triton's own launch path, and its
machine code read: registers, accesses to registers that did not fit (spills), and instructions a step and warp, of the
loops that run over the steps.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from kernels.selective_scan import selective_scan
from kernels.testing import ScanCase, make_inputs, outputs_and_gradients

CASES = {
    "plain": ScanCase(batch=1, channels=512, length=512, state=16, gate=False, bias=False),
    "gated, softplus": ScanCase(batch=1, channels=512, length=512, state=16),
    "gated, softplus, mask, ragged": ScanCase(batch=1, channels=500, length=500, state=16, mask=True),
    "gated, softplus, bfloat16": ScanCase(batch=1, channels=512, length=512, state=16, dtype=torch.bfloat16),
}
STEPS_AT_ONCE = 4
HEAD = (
    "| kernel | registers | spills | instructions a step and warp | of them spills |\n|---|---|---|---|---|"
)
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ )?\s*([A-Z0-9_.]+)(.*)")


class NamedDriver:
    """A driver for a GPU that is not there."""

    def __init__(self, architecture: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self) -> object:
        """Return the GPU to compile for."""
        return self.target

    def get_current_device(self) -> int:
        """Return a number."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """Return a number."""
        return 0


def resources(compiled: Any) -> dict[str, int]:
    """Return registers, spills and bytes of shared memory of a compiled kernel."""
    usage, code = disassemble(compiled)
    return {
        "registers": int(re.findall(r"REG:(\d+)", usage)[-1]),
        "spills": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "shared": compiled.metadata.shared,
    }


def disassemble(compiled: Any) -> tuple[str, str]:
    """Return what CUDA's tools say of a compiled kernel's resources, and its machine code."""
    import triton

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = [tools / "cuobjdump", "--dump-resource-usage", file.name]
        code = [tools / "nvdisasm", "-c", file.name]
        said = [subprocess.check_output(c, text=True, stderr=subprocess.DEVNULL) for c in (usage, code)]
    return said[0], said[1]


def loops(code: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the names of all instructions, and first and last of every loop: what a branch backwards spans."""
    labels, found, names = {}, [], []
    for line in code.splitlines():
        label = re.match(r"^\s*(\.L_x_\d+):", line)
        if label:
            labels[label[1]] = len(names)
        instruction = INSTRUCTION.match(line)
        if instruction:
            target = re.search(r"`\((\.L_x_\d+)\)", instruction[2])
            if instruction[1].startswith("BRA") and target and target[1] in labels:
                found.append((labels[target[1]], len(names)))
            names.append(instruction[1])
    return names, [loop for loop in found if loop[1] > loop[0]]  # the last instruction jumps to itself


def a_step(kernel: str, code: str, pattern: str = "") -> float:
    """Return the instructions, or those whose names match, of a step and warp.

    In `differentiate` two inner loops step through every other step once more; the smallest loop around one of them has
    the rest. Elsewhere the longest loop is the steps'.
    """
    names, spans = loops(code)

    def count(span: tuple[int, int]) -> int:
        return sum(re.match(pattern, name) is not None for name in names[span[0] : span[1] + 1])

    inner = [s for s in spans if not any(s[0] <= o[0] and o[1] <= s[1] and o != s for o in spans)]
    if kernel != "differentiate":
        return max(map(count, inner)) / STEPS_AT_ONCE
    around = min((s for s in spans if s not in inner), key=lambda s: s[1] - s[0])
    within = sum(count(s) for s in inner if around[0] <= s[0] and s[1] <= around[1])
    return (count(around) - within + sum(map(count, inner)) / 2) / STEPS_AT_ONCE


def compile_launches(report: Callable[[str, Any], None]) -> None:
    """From now on, let a launch compile its kernel and hand it to `report`, with its name."""
    from triton.runtime import jit

    run: Any = jit.JITFunction.run

    def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> None:
        report(kernel.fn.__name__, run(kernel, *arguments, grid=grid, warmup=True, **constants))

    patch.object(jit.JITFunction, "run", compile_only).start()


def main() -> None:
    """Print a table for each case."""
    from triton.runtime import driver

    patch("kernels.selective_scan.triton.lanes.plan.processors", lambda _device: 132).start()  # an H200's
    architecture = int(sys.argv[1]) if len(sys.argv) > 1 else 90
    active: Any = NamedDriver(architecture)
    driver.set_active(active)
    # Tensors on the CPU will do.
    patch("kernels.selective_scan.backends.triton_is_interpreted", lambda: True).start()
    seen: list[str] = []

    def report(name: str, compiled: Any) -> None:
        if name in seen:
            return  # `carry` goes both ways
        seen.append(name)
        used, code = resources(compiled), disassemble(compiled)[1]
        counts = "|"
        if name not in ("carry", "finish"):
            counts = f"{a_step(name, code):.0f} | {a_step(name, code, '(LDL|STL)'):.1f}"
        sys.stdout.write(f"| `{name}` | {used['registers']} | {used['spills']} | {counts} |\n")

    compile_launches(report)
    scan: Any = partial(selective_scan, return_last_state=True, backend="triton")
    for name, case in CASES.items():
        sys.stdout.write(f"\nsm_{architecture}, {name}\n\n{HEAD}\n")
        seen.clear()
        outputs_and_gradients(scan, make_inputs(case))


if __name__ == "__main__":
    main()
