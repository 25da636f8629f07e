"""Compile every shipped Triton configuration for a named GPU and print its resources as JSON.

A process of its own: kernels decorated under TRITON_INTERPRET cannot be compiled, and the cache must be fresh.
Usage: python compile_ahead.py 90 [all]. Without `all`: 16 states in float32, what the models use.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.selective_scan.triton_backend import tiling
from kernels.selective_scan.triton_backward import differentiate_chunks, summarize_adjoints
from kernels.selective_scan.triton_convolution import CHANNELS, STEPS, WARPS, filter_tile, spread_tile
from kernels.selective_scan.triton_forward import pass_over_chunks, summarize_chunks, write_chunks

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
FLAGS = {"has_mask": True, "has_z": True, "softplus": True}
WIDE = {
    "A",
    "skip",
    "bias",
    "total",
    "local",
    "entries",
    "exits",
    "first",
    "last",
    "dA",
    "dB",
    "dC",
    "dD",
    "dbias",
    "weight",
    "g",
    "d_weight",
    "d_bias",
}
IO = {"x", "initial", "dx", "u", "delta", "B", "C", "z", "y", "dy", "du", "ddelta", "dz"}
BYTES = {"mask": "*u8", "table": "*i64", "bounds": "*i64", "ends": "*i64"}


def build(kernel, constants, architecture, warps, io):
    constants = {name: constants[name] for name in kernel.arg_names if name in constants}
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in BYTES:
            signature[name] = BYTES[name]
        else:
            signature[name] = f"*{io}" if name in IO else "*fp32" if name in WIDE else "i32"
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if signature[n][0] == "*"
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={"num_warps": warps, "enable_fp_fusion": True})


def resources(compiled):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([TOOLS / "cuobjdump", "--dump-resource-usage", file.name], text=True)
        code = subprocess.check_output([TOOLS / "nvdisasm", file.name], text=True, stderr=subprocess.DEVNULL)
    registers = int(re.findall(r"REG:(\d+)", usage)[-1])
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    return {"registers": registers, "spills": spills, "shared": compiled.metadata.shared}


def main(architecture, everything):
    report = {}
    for state in (16, 64) if everything else (16,):
        t = tiling(state)
        forward = backward = {"N": state, "T": t.steps, "S": t.stretch, "BD": t.channels, **FLAGS}
        for io in ("fp32", "bf16") if everything else ("fp32",):
            for kernel in (summarize_chunks, write_chunks, summarize_adjoints):
                report[f"{kernel.__name__} N{state} {io}"] = resources(
                    build(kernel, forward, architecture, t.forward_warps, io)
                )
            name = f"differentiate_chunks N{state} {io}"
            report[name] = resources(
                build(differentiate_chunks, backward, architecture, t.backward_warps, io)
            )
        for reverse in (False, True):
            compiled = build(
                pass_over_chunks, {**forward, "reverse": reverse}, architecture, t.forward_warps, "fp32"
            )
            report[f"pass_over_chunks N{state} reverse={reverse}"] = resources(compiled)
    tile = {"width": 4, "T": STEPS, "BD": CHANNELS, "has_initial": True, "silu": True}
    for kernel, flags in (
        (filter_tile, {"backward": False}),
        (filter_tile, {"backward": True}),
        (spread_tile, {}),
    ):
        name = f"{kernel.__name__} {flags}"
        report[name] = resources(build(kernel, {**tile, **flags}, architecture, WARPS, "fp32"))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]), "all" in sys.argv)
