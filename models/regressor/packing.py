"""Cutting a pack of pieces into runs of steps, so that a long pack is processed in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.regressor.mamba_block import MambaState


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Consecutive steps of a pack, and the pieces to which they belong.

    Attributes
    ----------
    start, stop : steps of the pack
    first_piece, end_piece : range of pieces with steps in it
    cu_seqlens : (pieces here + 1,) their bounds, counted from `start`
    is_entered : whether the first piece began in the chunk before
    """

    start: int
    stop: int
    first_piece: int
    end_piece: int
    cu_seqlens: Int[Tensor, " pieces_plus_1"]
    is_entered: bool


def chunks(cu_seqlens: Int[Tensor, " pieces_plus_1"], chunk_steps: int) -> Iterator[Chunk]:
    """Yield the chunks of a pack in order, each of `chunk_steps` steps but the last."""
    if chunk_steps < 1:
        raise ValueError(f"chunk_steps is {chunk_steps}; it must be at least 1.")
    bounds = cu_seqlens.tolist()
    first = 0
    for start in range(0, bounds[-1], chunk_steps):
        stop = min(start + chunk_steps, bounds[-1])
        while bounds[first + 1] <= start:
            first += 1
        end = first + 1
        while bounds[end] < stop:
            end += 1
        local = [min(max(bound, start), stop) - start for bound in bounds[first : end + 1]]
        yield Chunk(
            start=start, stop=stop, first_piece=first, end_piece=end,
            cu_seqlens=torch.tensor(local, dtype=cu_seqlens.dtype, device=cu_seqlens.device),
            is_entered=bounds[first] < start,
        )  # fmt: skip


def enter(chunk: Chunk, start: MambaState, carried: MambaState) -> MambaState:
    """Return a layer's states for the pieces of `chunk`: their own, but for a piece that goes on.

    Parameters
    ----------
    start : where all pieces of the pack start
    carried : what the chunk before left behind; its last row belongs to the piece that goes on
    """
    pieces = slice(chunk.first_piece, chunk.end_piece)
    ssm = None if start.ssm is None else start.ssm[pieces]
    conv = None if start.conv is None else start.conv[pieces]
    skip = None if start.skip is None else start.skip[pieces]
    if not chunk.is_entered:
        return MambaState(ssm=ssm, conv=conv, skip=skip)
    others = chunk.end_piece - chunk.first_piece - 1
    ssm, conv = _replace_first(ssm, carried.ssm, others), _replace_first(conv, carried.conv, others)
    return MambaState(ssm=ssm, conv=conv, skip=skip)


def per_step(
    rows: Float[Tensor, "pieces width"], cu_seqlens: Int[Tensor, " pieces_plus_1"], n_steps: int
) -> Float[Tensor, "steps width"]:
    """Repeat each piece's row for every one of its steps, `n_steps` in all."""
    return rows.repeat_interleave(cu_seqlens.diff(), dim=0, output_size=n_steps)


def skips(
    state: MambaState, cu_seqlens: Int[Tensor, " pieces_plus_1"], n_steps: int
) -> tuple[Float[Tensor, "steps d_model"] | float, Float[Tensor, "steps 1"] | float]:
    """Return what the history skip adds at every step to a layer's input and to its estimate; 0 without one."""
    if state.skip is None:
        return 0.0, 0.0
    rows = per_step(state.skip, cu_seqlens, n_steps)
    return rows[:, :-1], rows[:, -1:]


def _replace_first(own: Tensor | None, carried: Tensor | None, others: int) -> Tensor | None:
    if carried is None:  # a layer without this kind of state
        return None
    rest = carried.new_zeros(others, *carried.shape[1:]) if own is None else own[1:].to(carried.dtype)
    return torch.cat([carried[-1:], rest])
