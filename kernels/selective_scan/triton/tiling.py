"""How the work of a Triton launch is cut: chunks of steps, blocks of channels, warps; and the choice among them.

Every scan uses the first candidate, unless `python -m kernels.selective_scan` has measured this machine's card: then
the fastest one, read from a file in the user's cache. A choice never changes within a process. Sums over channels
are made of other parts in another tiling, so gradients of B and C may differ in their last bits between two of them.
"""

import functools
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..remembered import kept_for_capture, made_of, sent_to
from ..user_cache import keep_in, kept_in

TILINGS = "tilings.json"
STEPS, SEGMENT, AHEAD = 32, 16, 8
"""Steps of a chunk; steps that the backward pass recomputes at a time; chunks that the pass over them reads ahead.

More steps in a chunk: less memory for states at entries, and more states computed twice (3 for every step here)."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Sizes of a launch.

    Attributes
    ----------
    channels, warps : of a program that summarizes or writes a chunk
    backward_channels, backward_warps : of `differentiate_chunks`, which stores one part of dB and dC per program
    stretch : steps whose states it holds in registers at a time; divides SEGMENT
    """

    channels: int
    warps: int
    backward_channels: int
    backward_warps: int
    stretch: int

    def over_chunks(self, state: int) -> dict[str, int]:
        """Return the compile-time sizes of the kernels that summarize or write chunks."""
        return {"N": power_of_two(state), "T": STEPS, "BD": self.channels, "num_warps": self.warps}

    def backward(self, state: int) -> dict[str, int]:
        """Return those of `differentiate_chunks`."""
        return {
            "N": power_of_two(state), "T": STEPS, "M": SEGMENT, "S": self.stretch,
            "BD": self.backward_channels, "num_warps": self.backward_warps,
        }  # fmt: skip


def candidates(state: int) -> tuple[Tiling, ...]:
    """Return the tilings that compile without spills for sm_80, sm_90 and sm_100, the default first.

    The default has few and large blocks backward: the parts of dB and dC are the largest things that it stores.
    """
    padded = power_of_two(state)
    made = [
        Tiling(
            channels=_channels(padded, forward), warps=_warps(padded, forward, 4),
            backward_channels=_channels(padded, backward), backward_warps=_warps(padded, backward, values),
            stretch=stretch,
        )
        for forward, backward, values, stretch in ((128, 512, 2, 4), (256, 256, 2, 4), (256, 128, 1, 4))
        if padded != 32 or backward == 512  # others spill: 2 to 20 accesses
    ]  # fmt: skip
    return tuple(dict.fromkeys(made))  # with few states some are the same


def over_sequences(state: int) -> dict[str, int]:
    """Return the compile-time sizes of `pass_over_chunks`: small programs, so that one sequence has many."""
    padded = power_of_two(state)
    return {"N": padded, "AHEAD": AHEAD, "BD": _channels(padded, 64), "num_warps": _warps(padded, 64, 2)}


def _channels(padded: int, elements: int) -> int:
    return max(4, min(32, elements // padded))


def _warps(padded: int, elements: int, values: int) -> int:
    """Return the warps of a program with `values` elements of the (channels, state) tile a thread."""
    return max(1, _channels(padded, elements) * padded // (32 * values))


@functools.cache
def tiling(state: int, dtype: torch.dtype, device: torch.device) -> Tiling:
    """Return the tiling that was measured fastest on this card, or the default."""
    choices = candidates(state)
    kept = kept_in(TILINGS).get(_choice_name(state, dtype, device))
    return next((choice for choice in choices if asdict(choice) == kept), choices[0])


def keep(choice: Tiling, state: int, dtype: torch.dtype, device: torch.device) -> None:
    """Make `choice` this card's tiling, from the next process on."""
    keep_in(TILINGS, _choice_name(state, dtype, device), asdict(choice))


def _choice_name(state: int, dtype: torch.dtype, device: torch.device) -> str:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "the interpreter"
    return f"{card}, {power_of_two(state)} states, {dtype}"


def view(tensor: Tensor | None) -> tuple[Tensor | int, ...] | None:
    """Return a strided tensor as the kernels take it: data and strides."""
    if tensor is None:
        return None
    if tensor.stride(-1) * tensor.shape[-1] >= 2**31:  # channels are counted in 32 bits
        tensor = tensor.contiguous()
    return tensor, *tensor.stride()


def chunk_table(x: Tensor, cu_seqlens: Tensor | None, steps: int) -> tuple[Tensor, Tensor]:
    """Return the table of chunks (batch row, first step, end, sequence, its start) and each sequence's first chunk."""
    batch, length, _ = x.shape
    if cu_seqlens is None:
        return kept_for_capture(x.device, even_table(batch, length, steps, x.device))
    return made_of(cu_seqlens, pack_table, x.device, steps)


def pack_table(bounds: tuple[int, ...], device: torch.device, steps: int) -> tuple[Tensor, Tensor]:
    """Return the table of sequences that lie end to end."""
    cuts = torch.tensor(bounds)
    made = _table(torch.zeros(len(cuts) - 1, dtype=torch.int64), cuts[:-1], cuts.diff(), steps)
    return sent_to(device, made[0]), sent_to(device, made[1])


@functools.lru_cache(maxsize=32)
def even_table(batch: int, length: int, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the table of rows of one length, which training asks for again and again."""
    starts, lengths = torch.zeros(batch, dtype=torch.int64), torch.full((batch,), length)
    made = _table(torch.arange(batch), starts, lengths, steps)
    return made[0].to(device), made[1].to(device)  # waits: whoever asks later may be on another stream


def _table(rows: Tensor, starts: Tensor, lengths: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    counts = (lengths + steps - 1) // steps
    bounds = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    first = starts[owner] + (torch.arange(len(owner)) - bounds[owner]) * steps
    stop = torch.minimum(first + steps, (starts + lengths)[owner])
    table = torch.stack([rows[owner], first, stop, owner, starts[owner]], dim=1)
    return table, bounds


def power_of_two(count: int) -> int:
    """Return the smallest power of two that is at least `count`."""
    return 1 << max(0, count - 1).bit_length()
