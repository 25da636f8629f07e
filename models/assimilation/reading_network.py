"""What networks say of the labs from the waveform alone: small Mamba models over block means, averaged.

A network reads what a line cannot: how features go together, and how they went before. It sees no result, so that
what it says is a reading of the filter's like a line's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.errors import BadAssimilationInput
from models.regressor.mamba_block import MambaBlock, MambaConfig, MambaState

CHUNK_STEPS = 128
"""Steps of one pass at reading: products of one shape round alike, whatever follows a step."""
BLOCK_HOURS = 1 / 6
_HOUR_US = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class ReadingNetworkConfig:
    """Sizes of the networks of one model.

    Attributes
    ----------
    features : lasting directions of the embedding that they see
    d_model, n_blocks, d_state : of the Mamba backbone
    members : networks whose mean is the reading, one for each fold of training patients that it left out
    dropout : share dropped in training
    """

    features: int
    d_model: int = 64
    n_blocks: int = 2
    d_state: int = 16
    members: int = 5
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("features", "d_model", "n_blocks", "d_state", "members"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1).")


class ReadingNetwork(nn.Module):
    """One network: features of blocks in, a reading of every lab on the filter's scale out, after each block.

    Blocks without a pulse are left out and do not advance the state; how long they lasted is an input of the next.
    """

    def __init__(self, config: ReadingNetworkConfig, n_labs: int):
        super().__init__()
        self.config = config
        self.input_proj = nn.Linear(config.features + 1, config.d_model)
        mamba = MambaConfig(d_model=config.d_model, d_state=config.d_state)
        self.blocks = nn.ModuleList(MambaBlock(mamba, config.dropout) for _ in range(config.n_blocks))
        self.norm = nn.RMSNorm(config.d_model, eps=1e-5)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.d_model, n_labs)
        nn.init.zeros_(self.head.weight)  # the first reading is the training mean, 0 on the filter's scale
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        features: Float[Tensor, "steps features"],
        gap: Float[Tensor, " steps"],
        cu_seqlens: Int[Tensor, " recordings_plus_1"] | None = None,
        states: Sequence[MambaState] | None = None,
    ) -> tuple[Float[Tensor, "steps labs"], list[MambaState]]:
        """Read a pack of recordings, and return where each one's states end.

        Parameters
        ----------
        gap : see ``gaps``
        cu_seqlens : where recordings start, and the last ends; None: there is one
        states : where they start, a layer each; zeros by default
        """
        x = self.input_proj(torch.cat([features, gap[:, None]], dim=1))[None]
        after = []
        for number, block in enumerate(cast(list[MambaBlock], list(self.blocks))):
            x, state = block(x, None if states is None else states[number], cu_seqlens=cu_seqlens)
            after.append(state)
        return self.head(self.dropout(self.norm(x[0]))), after


def gaps(end_us: Int[np.ndarray, " blocks"]) -> Float[np.ndarray, " blocks"]:
    """Return log(1 + hours without a block before each one): 0 where blocks follow each other, and at the first."""
    hours = np.diff(end_us, prepend=end_us[:1]) / _HOUR_US - BLOCK_HOURS
    return np.log1p(np.maximum(hours, 0.0))


class ReadingNetworks(nn.Module):
    """Several networks, the directions of the embedding that they see, and how much each lab heeds them.

    Buffers are float64, as everything around the filter; the networks themselves are float32.
    """

    mean: Tensor
    directions: Tensor
    share: Tensor

    def __init__(self, config: ReadingNetworkConfig, embed_width: int, n_labs: int):
        super().__init__()
        self.config = config
        double = torch.float64
        self.register_buffer("mean", torch.zeros(embed_width, dtype=double))
        self.register_buffer("directions", torch.zeros(config.features, embed_width, dtype=double))
        self.register_buffer("share", torch.zeros(n_labs, dtype=double))
        self.members = nn.ModuleList(ReadingNetwork(config, n_labs) for _ in range(config.members))
        self.requires_grad_(False)

    def set(
        self,
        mean: Float[np.ndarray, " width"],
        directions: Float[np.ndarray, "features width"],
        share: Float[Tensor, " labs"],
        members: "Sequence[ReadingNetwork]",
    ) -> None:
        """Take the embedding's mean and directions, what the networks count for each lab, and the networks."""
        self.mean.copy_(torch.from_numpy(mean))
        self.directions.copy_(torch.from_numpy(directions))
        self.share.copy_(share)
        for own, given in zip(self.members, members, strict=True):
            own.load_state_dict(given.state_dict())

    def checked(self) -> "ReadingNetworks":
        """Return the networks, or refuse shares that are none.

        Raises
        ------
        BadAssimilationInput : a share outside 0..1
        """
        if not bool(((self.share >= 0) & (self.share <= 1)).all()):
            raise BadAssimilationInput(
                f"The networks' shares are {self.share.tolist()}; each must lie in 0..1."
            )
        return self

    def read(
        self, means: Float[np.ndarray, "blocks width"], end_us: Int[np.ndarray, " blocks"]
    ) -> Float[np.ndarray, "blocks labs"]:
        """Read one patient's mean embeddings; no bit of a reading depends on a later block."""
        mean, directions = self.mean.cpu().numpy(), self.directions.cpu().numpy()
        features = np.array([directions @ (row - mean) for row in means]).reshape(-1, len(directions))
        read = [read_alone(cast(ReadingNetwork, member), features, end_us) for member in self.members]
        return np.mean(read, axis=0)


def read_alone(
    network: ReadingNetwork,
    features: Float[np.ndarray, "blocks features"],
    end_us: Int[np.ndarray, " blocks"],
) -> Float[np.ndarray, "blocks labs"]:
    """Read one recording's features in chunks of one fixed size, the last one filled up; no dropout."""
    device = network.head.weight.device
    network.eval()
    n_blocks, states = len(features), None
    filled = -n_blocks % CHUNK_STEPS
    x = torch.from_numpy(np.pad(features, ((0, filled), (0, 0)))).float().to(device)
    gap = torch.from_numpy(np.pad(gaps(end_us), (0, filled))).float().to(device)
    parts = [np.zeros((0, network.head.out_features))]
    with torch.inference_mode():
        for first in range(0, len(x), CHUNK_STEPS):
            chunk = slice(first, first + CHUNK_STEPS)
            output, states = network(x[chunk], gap[chunk], None, states)
            parts.append(output.double().cpu().numpy())
    return np.concatenate(parts)[:n_blocks]
