"""The few lines of PTX in `lanes.memory`, on a small machine of their own: Triton's interpreter never sees them."""

import re

import pytest
import torch
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st

from kernels.selective_scan.triton.lanes import memory

KINDS = {
    "fp32": (tl.float32, torch.float32),
    "bf16": (tl.bfloat16, torch.bfloat16),
    "fp16": (tl.float16, torch.float16),
}
OFFSETS = st.integers(-8, 8)
"""Of a lane, in elements: a base is a pointer into the middle of what it belongs to."""
BASE = 64


class Machine:
    """One lane: registers hold bits, `$n` are the operands of the inline code, memory is little-endian."""

    def __init__(self, memory: bytes, **operands: int) -> None:
        self.memory = bytearray(memory)
        self.bits = {f"${name[1:]}": value for name, value in operands.items()}

    def run(self, code: str) -> "Machine":
        for line in filter(None, map(str.strip, code.strip("{} ").split(";"))):
            if line.startswith("@"):
                condition, line = line[1:].split(" ", 1)
                if not self.bits[condition]:
                    continue
            if not line.startswith(".reg"):
                operation, operands = line.split(" ", 1)
                self.step(operation, re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", operands))
        return self

    def step(self, operation: str, operands: list[str]) -> None:
        name, *kinds = operation.split(".")
        to = operands[0]
        values = [self.value(operand) for operand in operands[1:] if operand[0] not in "[{"]
        match name, kinds[-1]:
            case "mad", "s32":
                a, b, c = values
                self.bits[to] = signed(a) * b + c
            case "ld", kind:
                targets = to.strip("{}").split(", ")
                size = int(kind[1:]) // 8
                for n, target in enumerate(targets):
                    first = self.address(operands[1]) + n * size
                    self.bits[target] = int.from_bytes(self.memory[first : first + size], "little")
            case "st", kind:
                size = int(kind[1:]) // 8
                for n, source in enumerate(operands[1].strip("{}").split(", ")):
                    first = self.address(to) + n * size
                    self.memory[first : first + size] = self.value(source).to_bytes(size, "little")
            case "shl", "b32":
                self.bits[to] = values[0] << values[1] & 0xFFFFFFFF
            case "setp", "s32":
                assert kinds[0] == "ne"
                self.bits[to] = int(values[0] != values[1])
            case "mov", "u32":
                self.bits[to] = values[0]
            case "cvt", source:
                assert kinds in (["f32", "f16"], ["rn", "bf16", "f32"], ["rn", "f16", "f32"])
                self.bits[to] = bits_of(number_of(values[0], TORCH[source]), TORCH[kinds[-2]])
            case _:
                raise AssertionError(f"{operation} is not known to this machine: teach it")

    def value(self, operand: str) -> int:
        return int(operand) if re.fullmatch(r"-?\d+", operand) else self.bits[operand]

    def address(self, operand: str) -> int:
        register, _, more = operand.strip("[]").partition(" + ")
        return self.bits[register] + int(more or 0)


TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def signed(bits: int) -> int:
    return bits - (1 << 32) if bits >= 1 << 31 else bits


def bits_of(value: float, kind: torch.dtype) -> int:
    whole = torch.int32 if kind == torch.float32 else torch.int16
    return int(torch.tensor(value, dtype=torch.float32).to(kind).view(whole)) & (
        0xFFFFFFFF if whole == torch.int32 else 0xFFFF
    )


def number_of(bits: int, kind: torch.dtype) -> float:
    size = 4 if kind == torch.float32 else 2
    return float(torch.frombuffer(bytearray(bits.to_bytes(size, "little")), dtype=kind)[0])


def table(kind: torch.dtype) -> torch.Tensor:
    return torch.arange(-64, 64, dtype=torch.float32).div(7).to(kind)


def bytes_of(values: torch.Tensor) -> bytes:
    return bytes(values.view(torch.uint8).tolist())


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("name", KINDS)
@given(offset=OFFSETS, after=st.integers(0, 16))
def test_a_load_reads_the_element_it_names_as_float32(
    name: str, early: bool, offset: int, after: int
) -> None:
    kind, dtype = KINDS[name]
    values = table(dtype)
    base = BASE * values.element_size()
    code = memory.load_code(kind, after, early)
    assert (".nc" in code) == early
    found = Machine(bytes_of(values), _1=base, _2=offset & 0xFFFFFFFF).run(code)
    assert number_of(found.bits["$0"], torch.float32) == float(values[BASE + offset + after])


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", KINDS)
@given(offset=OFFSETS, after=st.integers(0, 16), value=st.floats(-1e4, 1e4, width=32), taken=st.booleans())
def test_a_store_rounds_and_writes_the_element_it_names_and_no_other(
    name: str, masked: bool, offset: int, after: int, value: float, taken: bool
) -> None:
    kind, dtype = KINDS[name]
    values = table(dtype)
    lane = Machine(
        bytes_of(values), _1=BASE * values.element_size(), _2=offset & 0xFFFFFFFF, _3=bits_of(value, torch.float32),
        _4=int(taken),
    )  # fmt: skip
    lane.run(memory.store_code(kind, after, masked))
    wanted = values.clone()
    if taken or not masked:
        wanted[BASE + offset + after] = value
    assert bytes(lane.memory) == bytes_of(wanted)


@pytest.mark.parametrize("early", [True, False])
@given(offset=st.integers(-4, 4).map(lambda n: 4 * n))
def test_four_neighbours_are_loaded_in_order(early: bool, offset: int) -> None:
    values = table(torch.float32)
    lane = Machine(bytes_of(values), _4=4 * BASE, _5=offset & 0xFFFFFFFF).run(memory.load_four_code(early))
    found = [number_of(lane.bits[f"${n}"], torch.float32) for n in range(4)]
    assert found == values[BASE + offset : BASE + offset + 4].tolist()


@given(offset=st.integers(-4, 4).map(lambda n: 4 * n))
def test_four_neighbours_are_stored_in_order(offset: int) -> None:
    values, new = table(torch.float32), [0.5, -1.25, 3.0, 1e-3]
    operands = {f"_{3 + n}": bits_of(x, torch.float32) for n, x in enumerate(new)}
    lane = Machine(bytes_of(values), _1=4 * BASE, _2=offset & 0xFFFFFFFF, **operands).run(
        memory.store_four_code()
    )
    wanted = values.clone()
    wanted[BASE + offset : BASE + offset + 4] = torch.tensor(new)
    assert bytes(lane.memory) == bytes_of(wanted)


@pytest.mark.parametrize("mask", [1, 2, 3, 4, 8, 16])
def test_a_shuffle_is_a_butterfly_of_all_lanes(mask: int) -> None:
    # shfl.sync.bfly: lane ^ mask, clamped to 31, all 32 lanes taking part (PTX ISA, "shfl.sync").
    assert memory.shuffle_code(mask) == f"shfl.sync.bfly.b32 $0, $1, {mask}, 31, -1;"
