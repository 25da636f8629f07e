"""Which read-outs there are, and how wide each is; no torch, so that a name is checked before anything is loaded.

``last`` is the paper's: the last layer's last position. ``mean`` is the last layer's mean over the positions of the
patches, ``layers`` the means of every layer side by side, the first layer first. With ``+spread`` the standard
deviation over the positions follows, a number for each dimension of the layers that were read (``last`` and ``mean``:
the last one). All but ``last`` are our decision; figures: docs/encoder.md.
"""

SPREAD = "+spread"
KINDS = ("last", "mean", "layers")
READOUTS = (*KINDS, *(f"{kind}{SPREAD}" for kind in KINDS))


def checked_readout(readout: str) -> str:
    """Return `readout`.

    Raises
    ------
    ValueError : there is none of this name
    """
    if readout not in READOUTS:
        raise ValueError(f"readout is {readout!r}; it must be one of {', '.join(READOUTS)}.")
    return readout


def readout_width(readout: str, d_model: int, n_layers: int) -> int:
    """Return how many numbers a window becomes."""
    layers = n_layers if readout.startswith("layers") else 1
    return d_model * layers * (2 if readout.endswith(SPREAD) else 1)


def needs_every_position(readout: str) -> bool:
    """Whether the last layer's positions before the last one are read as well."""
    return readout != "last"
