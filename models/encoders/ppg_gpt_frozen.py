"""The forward pass of a frozen PPG-GPT on a CPU: what `PPGGPT.features` computes, near the speed of its products.

What the embedding does not need is not computed, and what never changes is computed once:

* The start token sees itself alone, so its state is a constant of each layer: 30 positions are left of 31.
* Where the last position alone is read, the last layer makes queries, and all that follows them, for it alone.
* Read-outs of every layer are taken as the layers go by; no layer's output is kept.
* Queries, keys and values come from one product; the scales of the norms and 1 / sqrt(d_head) are in its weights.
* Weights are copied into the layout that oneDNN multiplies fastest.

In both precisions the residual stream, the norms, the rotation and the softmax are float32.

Source: GPT-PPG (arXiv 2503.08015) for the function; our decision for the rest.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.encoders.lora import LoRALinear
from models.encoders.ppg_gpt_layers import NORM_EPS, GPTLayer, PatchEmbedding, RMSNorm
from models.encoders.readout_names import needs_every_position
from models.encoders.readouts import read_out

Product = Callable[[Tensor], Tensor]
"""x to x W^T + b over the last axis, perhaps with a ReLU after it."""


class Affine(NamedTuple):
    """Weight (outputs, inputs) and bias (outputs,) of x W^T + b."""

    weight: Tensor
    bias: Tensor


class FrozenPPGGPT:
    """A copy of a PPG-GPT's weights for inference; later changes of the model do not reach it.

    Parameters
    ----------
    n_patches : of a window
    batch : windows that each call will bring; any other number works too, more slowly
    dtype : of the products, float32 or bfloat16
    """

    @torch.no_grad()
    def __init__(
        self,
        patch_embedding: PatchEmbedding,
        layers: Iterable[nn.Module],
        *,
        n_patches: int,
        batch: int,
        dtype: torch.dtype,
    ):
        rows = batch * n_patches
        self._embed_patches = product([affine(patch_embedding.linear)], torch.float32, rows)
        self._layers: list[_FrozenLayer] = []
        start = patch_embedding.sep[None, None]
        for layer in layers:
            assert isinstance(layer, GPTLayer)
            self._layers.append(_FrozenLayer(layer, start, n_patches=n_patches, rows=rows, dtype=dtype))
            start = layer(start)

    @torch.no_grad()
    def __call__(self, patches: Float[Tensor, "n patches samples"], readout: str) -> Float[Tensor, "n width"]:
        """Return a read-out of the layers' outputs, one of ``models.encoders.readouts.READOUTS``."""
        queries = patches.shape[1] if needs_every_position(readout) else 1
        return read_out(readout, self._outputs(patches, queries))

    def _outputs(
        self, patches: Float[Tensor, "n patches samples"], queries: int
    ) -> Iterator[Float[Tensor, "n queries width"]]:
        """Yield the output of each layer, which the next one overwrites."""
        x = self._embed_patches(patches)
        for layer in self._layers[:-1]:
            x = layer(x, queries=x.shape[1])
            yield x
        yield self._layers[-1](x, queries=queries)


class _FrozenLayer:
    """One layer over the positions after the start token, whose state before the layer is `start`."""

    def __init__(self, layer: GPTLayer, start: Tensor, *, n_patches: int, rows: int, dtype: torch.dtype):
        self._n_heads, self._dtype = layer.attn.n_heads, dtype
        self._set_attention(layer, start, rows)
        self._concat = product([affine(layer.attn.w_concat)], dtype, rows)
        self._widen = product([affine_after(layer.norm_2, layer.ffn.linear1)], dtype, rows, then="relu")
        self._narrow = product([affine(layer.ffn.linear2)], dtype, rows)
        angles = torch.arange(1, n_patches + 1)[:, None] * layer.attn.attention.rotary_embed.freqs.float()
        self._turns = torch.polar(torch.ones_like(angles), angles)
        self._unseen = torch.full((n_patches, n_patches + 1), -math.inf, dtype=dtype).triu(2)

    def _set_attention(self, layer: GPTLayer, start: Tensor, rows: int) -> None:
        attention, norm, heads = layer.attn, layer.norm_1, (self._n_heads, 1, -1)
        # The start token stands at place 0, where the rotation is the identity.
        self._start_key = attention.w_k(norm(start)).view(heads).to(self._dtype)
        self._start_value = attention.w_v(norm(start)).view(heads).to(self._dtype)
        q, k, v = (affine_after(norm, linear) for linear in (attention.w_q, attention.w_k, attention.w_v))
        shrink = math.sqrt(self._n_heads / start.shape[-1])
        q = Affine(q.weight * shrink, q.bias * shrink)
        self._q, self._kv, self._qkv = (
            product(parts, self._dtype, rows) for parts in ([q], [k, v], [q, k, v])
        )

    def __call__(
        self, x: Float[Tensor, "n positions width"], queries: int
    ) -> Float[Tensor, "n queries width"]:
        """Return the last `queries` positions after the layer; `x` is overwritten."""
        normed = _normed(x, self._dtype)
        mixed = self._concat(self._attend(normed, queries))
        x = x[:, x.shape[1] - queries :].add_(mixed)
        return x.add_(self._narrow(self._widen(_normed(x, self._dtype))))

    def _attend(self, x: Tensor, queries: int) -> Tensor:
        n, positions, width = x.shape
        if queries == positions:
            q, k, v = self._heads(self._qkv(x), 3)
        else:
            (q,), (k, v) = self._heads(self._q(x[:, -queries:]), 1), self._heads(self._kv(x), 2)
        q, k = self._rotated(q), self._rotated(k)
        keys = torch.cat([self._start_key.expand(n, -1, -1, -1), k], dim=2)
        values = torch.cat([self._start_value.expand(n, -1, -1, -1), v], dim=2)
        scores = torch.baddbmm(self._unseen[-queries:], q.flatten(0, 1), keys.flatten(0, 1).mT)
        shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(self._dtype)
        mixed = torch.bmm(shares, values.flatten(0, 1))
        return mixed.unflatten(0, (n, -1)).transpose(1, 2).reshape(n, queries, width)

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        """Return a view (parts, n, heads, positions, d_head)."""
        return x.unflatten(-1, (parts, self._n_heads, -1)).permute(2, 0, 3, 1, 4)

    def _rotated(self, x: Tensor) -> Tensor:
        """Turn the pairs in the first half of each head; the positions are the last ones of the window."""
        turned = x.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        pairs = turned[..., : 2 * self._turns.shape[1]].unflatten(-1, (-1, 2))
        torch.view_as_complex(pairs).mul_(self._turns[-x.shape[-2] :])
        return turned.to(self._dtype)


def affine(linear: nn.Module) -> Affine:
    """Return the weight and bias of a linear layer, of one with low-rank weights their sum."""
    plain = linear.merged() if isinstance(linear, LoRALinear) else linear
    assert isinstance(plain, nn.Linear)
    return Affine(plain.weight, plain.bias)


def affine_after(norm: RMSNorm, linear: nn.Module) -> Affine:
    """Return `linear` with the norm's scale in its weights; `_normed` does the rest of the norm."""
    weight, bias = affine(linear)
    return Affine(weight * norm.scale, bias)


def _normed(x: Float[Tensor, "*batch width"], dtype: torch.dtype) -> Float[Tensor, "*batch width"]:
    """Divide by the root mean square."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = norm.square_().div_(x.shape[-1]).add_(NORM_EPS).rsqrt_()
    return torch.mul(x, inverse, out=torch.empty_like(x, dtype=dtype))


def product(parts: list[Affine], dtype: torch.dtype, rows: int, then: str = "none") -> Product:
    """Return x to x W^T + b for stacked `parts`, by oneDNN on weights packed for `rows` rows where that is there."""
    weight = torch.cat([part.weight for part in parts]).to(dtype)
    bias = torch.cat([part.bias for part in parts]).to(dtype)
    if _has_packed_products(dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, then, [], "")
    if then == "relu":
        return lambda x: F.linear(x, weight, bias).relu_()
    return lambda x: F.linear(x, weight, bias)


def _has_packed_products(dtype: torch.dtype) -> bool:
    """Return whether this PyTorch has the operators that its own compiler uses for frozen weights."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
