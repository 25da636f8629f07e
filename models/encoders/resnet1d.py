"""The one-dimensional residual network under PaPaGei-S and Pulse-PPG, named as in their checkpoints.

Source: facts of both projects' published code (pre-activation blocks, "same" padding computed from the
length, shortcuts by max-pooling and zero channels); frozen use alone, so dropout is left out.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CHANNELS_DOUBLE_EVERY = 4
"""Blocks; and every second block halves the length."""


class SameConv1d(nn.Module):
    """Convolution whose output has ceil(length / stride) samples; the spare zero goes to the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)

    def forward(self, x: Float[Tensor, "n inputs length"]) -> Float[Tensor, "n outputs shorter"]:
        """Pad, then convolve."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        spare = max(0, (-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1])
        return self.conv(F.pad(x, (spare // 2, spare - spare // 2)))


class ResidualBlock(nn.Module):
    """norm, ReLU, convolution, twice; the very first norm and ReLU belong to the stem."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, is_first: bool):
        super().__init__()
        self.is_first, self.stride = is_first, stride
        self.bn1, self.bn2 = nn.BatchNorm1d(inputs), nn.BatchNorm1d(outputs)
        self.conv1 = SameConv1d(inputs, outputs, kernel, stride)
        self.conv2 = SameConv1d(outputs, outputs, kernel)

    def forward(self, x: Float[Tensor, "n inputs length"]) -> Float[Tensor, "n outputs shorter"]:
        """Return the block's output; its length is halved (rounded up) where the stride is 2."""
        out = self.conv1(x if self.is_first else F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        if self.stride > 1:
            x = F.max_pool1d(F.pad(x, (0, self.stride - 1)), self.stride)
        grown = out.shape[1] - x.shape[1]
        return out + F.pad(x, (0, 0, grown // 2, grown - grown // 2))


class ResNet1D(nn.Module):
    """Stem and residual blocks over one input channel."""

    def __init__(self, *, base_filters: int, kernel: int, n_blocks: int):
        super().__init__()
        self.first_block_conv = SameConv1d(1, base_filters, kernel)
        self.first_block_bn = nn.BatchNorm1d(base_filters)
        widths = [base_filters * 2 ** (i // CHANNELS_DOUBLE_EVERY) for i in range(n_blocks)]
        self.basicblock_list = nn.ModuleList(
            ResidualBlock(widths[max(i - 1, 0)], widths[i], kernel, 1 + i % 2, is_first=i == 0)
            for i in range(n_blocks)
        )
        self.out_channels = widths[-1]

    def blocks(self, x: Float[Tensor, "n 1 length"]) -> Float[Tensor, "n channels shorter"]:
        """Return the last block's output."""
        x = F.relu(self.first_block_bn(self.first_block_conv(x)))
        for block in self.basicblock_list:
            x = block(x)
        return x
