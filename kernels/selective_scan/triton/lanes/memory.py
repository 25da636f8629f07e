"""Loads, stores and shuffles of one element a thread, by inline PTX; the same in plain Triton for the interpreter.

Triton's own loads and stores would do. But its pass that gives every access a layout takes a time quadratic in their
number (half a minute for these kernels); and whether a load may overtake the stores before it, which decides how long
a program waits, can only be said in PTX.

An address is a scalar base and an offset of 32 bits for every lane: tensors of pointers would take two registers
for each of some fifteen operands, through the whole kernel.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportAssignmentType=false
# (a kernel's arguments and launch are not what Python's types say)
import os

import triton
import triton.language as tl

COMPILED = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")


@triton.constexpr_function
def width(kind):
    """Return the bytes of an element."""
    return kind.primitive_bitwidth // 8


@triton.constexpr_function
def shuffle_code(mask):
    """Return PTX that fetches the value of the lane whose number differs in `mask`."""
    return f"shfl.sync.bfly.b32 $0, $1, {mask}, 31, -1;"


@triton.jit
def from_lane(x, MASK: tl.constexpr):
    """Return the x of the lane whose number differs in the bits of MASK.

    Declared pure, so that the compiler may move it, though all lanes of a warp must come to a shuffle. No move parts
    them: what these kernels branch on (the program's number, sizes, a pack's table, whether an operand is there) is the
    same for all of a program's threads, and what differs between lanes is selected or stored under a mask, which is no
    branch. A new `if` has to keep to that.
    """
    if MASK == 0:
        return x
    elif COMPILED:
        return tl.inline_asm_elementwise(shuffle_code(MASK), "=f,f", [x], tl.float32, True, 1)
    else:
        return tl.gather(x, tl.arange(0, x.shape[0]) ^ MASK, 0)


@triton.jit
def reciprocal(x):
    """Return 1 / x to the last bit but one, by one instruction in place of eight."""
    if COMPILED:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    else:
        return 1.0 / x


@triton.constexpr_function
def load_code(kind, after, early):
    """Return PTX that loads the element `after` those that base $1 and offset $2 name, as a float."""
    size = kind.primitive_bitwidth // 8
    path = "ld.global.nc" if early else "ld.global"
    address = f"mad.wide.s32 at, $2, {size}, $1;"
    place = f"[at + {after * size}]"
    body = {
        "fp32": f"{path}.f32 $0, {place};",
        "bf16": f"{path}.u16 raw, {place}; shl.b32 $0, raw, 16;",
        "fp16": f"{path}.b16 half, {place}; cvt.f32.f16 $0, half;",
    }[str(kind)]
    return f"{{ .reg .b64 at; .reg .b32 raw; .reg .b16 half; {address} {body} }}"


@triton.jit
def load(base, offset, AFTER: tl.constexpr, EARLY: tl.constexpr):
    """Return, as float32, the elements at base + offset + AFTER.

    EARLY: nothing in the kernel writes there, so that the assembler may lift the load above stores; else it stays
    between the stores before it and those after.
    """
    if COMPILED:
        code: tl.constexpr = load_code(base.dtype.element_ty, AFTER, EARLY)
        return tl.inline_asm_elementwise(code, "=f,l,r", [base.to(tl.int64), offset], tl.float32, False, 1)
    else:
        return tl.load(base + offset + AFTER).to(tl.float32)


@triton.constexpr_function
def store_code(kind, after, masked):
    """Return PTX that stores the float $3, in `kind`, `after` elements past base $1 and offset $2, where $4."""
    size = kind.primitive_bitwidth // 8
    when = "setp.ne.s32 here, $4, 0; @here " if masked else ""
    place = f"[at + {after * size}]"
    body = {
        "fp32": f"{when}st.global.f32 {place}, $3;",
        "bf16": f"cvt.rn.bf16.f32 half, $3; {when}st.global.b16 {place}, half;",
        "fp16": f"cvt.rn.f16.f32 half, $3; {when}st.global.b16 {place}, half;",
    }[str(kind)]
    registers = ".reg .b64 at; .reg .b16 half; .reg .pred here;"
    return f"{{ {registers} mad.wide.s32 at, $2, {size}, $1; {body} mov.u32 $0, 0; }}"


@triton.jit
def store(base, offset, AFTER: tl.constexpr, x, mask):
    """Store x at base + offset + AFTER, where `mask` (None: everywhere)."""
    if COMPILED:
        at = base.to(tl.int64)
        if mask is None:
            code: tl.constexpr = store_code(base.dtype.element_ty, AFTER, False)
            tl.inline_asm_elementwise(code, "=r,l,r,f", [at, offset, x], tl.int32, False, 1)
        else:
            where: tl.constexpr = store_code(base.dtype.element_ty, AFTER, True)
            taken = mask.to(tl.int32)
            tl.inline_asm_elementwise(where, "=r,l,r,f,r", [at, offset, x, taken], tl.int32, False, 1)
    else:
        tl.store(base + offset + AFTER, x.to(base.dtype.element_ty), mask)


@triton.constexpr_function
def load_four_code(early):
    """Return PTX that loads four neighbouring floats."""
    path = "ld.global.nc" if early else "ld.global"
    address = "mad.wide.s32 at, $5, 4, $4;"
    return f"{{ .reg .b64 at; {address} {path}.v4.f32 {{$0, $1, $2, $3}}, [at]; }}"


@triton.jit
def load_four(base, offset, EARLY: tl.constexpr):
    """Return four neighbouring floats from base + offset on, as four values a lane."""
    if COMPILED:
        floats: tl.constexpr = (tl.float32, tl.float32, tl.float32, tl.float32)
        return tl.inline_asm_elementwise(
            load_four_code(EARLY), "=f,=f,=f,=f,l,r", [base.to(tl.int64), offset], floats, False, 1
        )
    else:
        at = base + offset
        return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.constexpr_function
def store_four_code():
    """Return PTX that stores four floats as neighbours."""
    return "{ .reg .b64 at; mad.wide.s32 at, $2, 4, $1; st.global.v4.f32 [at], {$3, $4, $5, $6}; mov.u32 $0, 0; }"


@triton.jit
def store_four(base, offset, x0, x1, x2, x3):
    """Store four values a lane as neighbours from base + offset on."""
    if COMPILED:
        values = [base.to(tl.int64), offset, x0, x1, x2, x3]
        tl.inline_asm_elementwise(store_four_code(), "=r,l,r,f,f,f,f", values, tl.int32, False, 1)
    else:
        at = base + offset
        tl.store(at, x0)
        tl.store(at + 1, x1)
        tl.store(at + 2, x2)
        tl.store(at + 3, x3)
