"""The GPU kernels' algorithm in PyTorch: three passes over chunks, forward and backward by hand.

Cut by the same table of chunks that the kernels are launched with. What autograd would hide is written out: local
summaries, the carry over chunks (whose reverse ends as dL/dh0), and sums over channels and chunks from parts.
"""

import torch
from torch.nn.functional import silu

from kernels.selective_scan.operands import scan_inputs, step_sizes, time_major
from kernels.selective_scan.triton.tiling import chunk_table

OPTIONAL = {"D": None, "z": None, "delta_bias": None, "delta_softplus": False, "initial_state": None,
            "step_mask": None, "cu_seqlens": None}  # fmt: skip
TENSORS = (
    "u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "step_mask", "cu_seqlens"
)  # fmt: skip
LEAVES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def three_pass_scan(*, steps=16, **arguments):
    """Return (y, last_state) for the arguments of `selective_scan`, in chunks of `steps`."""
    given = {**OPTIONAL, **arguments}
    x = time_major(scan_inputs([given[name] for name in TENSORS], given["delta_softplus"]))
    y, last_state = ThreePass.apply(x, steps, *(getattr(x, name) for name in LEAVES))
    return y.transpose(1, 2), last_state


class Chunks:
    """Every operand as (chunk, step, channel[, state]), with steps past a chunk's end of size zero."""

    def __init__(self, x, steps):
        self.x, self.steps = x, steps
        table, bounds = chunk_table(x.u, x.cu_seqlens, steps)
        self.bounds = bounds.tolist()
        row, first, stop = table[:, :3].unbind(1)
        t = first[:, None] + torch.arange(steps)
        self.real = t < stop[:, None]
        self.at = (row[:, None].expand_as(t)[self.real], t[self.real])
        self.delta, self.u = self.cut(step_sizes(x)), self.cut(x.u)
        self.B, self.C = (self.cut(p).repeat_interleave(x.u.shape[2] // p.shape[2], 2) for p in (x.B, x.C))
        self.decay = torch.exp(self.delta[..., None] * x.A)
        self.drive = (self.delta * self.u)[..., None] * self.B
        self.total = torch.exp(self.delta.sum(1)[..., None] * x.A)

    def cut(self, tensor):
        out = torch.zeros(*self.real.shape, *tensor.shape[2:], dtype=self.x.state_dtype)
        out[self.real] = tensor[self.at].to(out.dtype)
        return out

    def join(self, chunks, like):
        out = torch.zeros_like(like, memory_format=torch.contiguous_format)
        out[self.at] = chunks[self.real].to(like.dtype)
        return out

    def states(self, state):
        """Return the states after every step of all chunks at once, from their entry states."""
        after = []
        for t in range(self.steps):
            state = self.decay[:, t] * state + self.drive[:, t]
            after.append(state)
        return torch.stack(after, 1)

    def carry(self, first, local, *, reverse):
        """Return the value that every chunk starts from, and what each sequence ends with."""
        starts, ends = torch.zeros_like(local), torch.zeros_like(first)
        for sequence, value in enumerate(first):
            chunks = range(self.bounds[sequence], self.bounds[sequence + 1])
            for k in reversed(chunks) if reverse else chunks:
                starts[k] = value
                value = self.total[k] * value + local[k]
            ends[sequence] = value
        return starts, ends


class ThreePass(torch.autograd.Function):
    """Forward and backward pass, three passes over chunks each."""

    @staticmethod
    def forward(ctx, x, steps, *_leaves):
        chunks = Chunks(x, steps)
        local = chunks.states(torch.zeros(len(chunks.u), *x.A.shape, dtype=x.A.dtype))[:, -1]
        entries, last_state = chunks.carry(x.entry_state(), local, reverse=False)
        read = (chunks.states(entries) * chunks.C).sum(-1)
        read = read if x.D is None else read + x.D * chunks.u
        y = chunks.join(read if x.z is None else read * silu(chunks.cut(x.z)), x.u)
        ctx.saved = chunks, entries, read
        return y, last_state

    @staticmethod
    def backward(ctx, dy, d_last_state):
        chunks, entries, read = ctx.saved
        x, g = chunks.x, chunks.cut(dy)
        gradients = {}
        if x.z is not None:
            z = chunks.cut(x.z)
            gate = torch.sigmoid(z)
            gradients["z"] = chunks.join(g * read * gate * (1 + z * (1 - gate)), x.z)
            g = g * z * gate
        local = adjoints(chunks, g, torch.zeros_like(entries))[1]
        exits, d_state = chunks.carry(d_last_state, local, reverse=True)
        q, _ = adjoints(chunks, g, exits)
        gradients |= chunk_gradients(chunks, entries, g, q) | {"initial_state": d_state}
        wanted = [None if getattr(x, name) is None else gradients[name] for name in LEAVES]
        return None, None, *wanted


def adjoints(chunks, g, q):
    """Return dL/dh after every step, and what each chunk sends to its entry, from the adjoints at the exits."""
    after = []
    for t in reversed(range(chunks.steps)):
        q = q + g[:, t, :, None] * chunks.C[:, t]
        after.append(q)
        q = chunks.decay[:, t] * q
    return torch.stack(after[::-1], 1), q


def chunk_gradients(chunks, entries, g, q):
    """Return what is local to the steps; sums over channels within a group, then parts of chunks in order."""
    x, states = chunks.x, chunks.states(entries)
    before = torch.cat([entries[:, None], states[:, :-1]], 1)
    by_drive, exponent = (q * chunks.B).sum(-1), q * chunks.decay * before
    raw = torch.zeros_like(x.delta) if x.delta_bias is None else x.delta_bias.expand_as(x.delta)
    slope = torch.sigmoid(x.delta.to(raw.dtype) + raw) if x.delta_softplus else torch.ones_like(raw)
    if x.step_mask is not None:
        slope = slope * x.step_mask[..., None]
    d_delta = (by_drive * chunks.u + (exponent * x.A).sum(-1)) * chunks.cut(slope)
    d_u = by_drive * chunks.delta + (0 if x.D is None else x.D * g)

    def by_group(parts):
        return parts.unflatten(2, (x.B.shape[2], -1)).sum(3)

    return {
        "u": chunks.join(d_u, x.u),
        "delta": chunks.join(d_delta, x.delta),
        "A": (exponent * chunks.delta[..., None]).sum(1).sum(0),
        "B": chunks.join(by_group(q * (chunks.delta * chunks.u)[..., None]), x.B),
        "C": chunks.join(by_group(g[..., None] * states), x.C),
        "D": (g * chunks.u).sum(1).sum(0),
        "delta_bias": d_delta.sum(1).sum(0),
    }
