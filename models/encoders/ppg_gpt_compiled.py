"""The forward pass of a frozen PPG-GPT on a GPU: what `PPGGPT.features` computes, with few passes over memory.

A GPU multiplies so fast that the rest, eagerly run, takes longer than the products. So each layer is one compiled
function (`torch.compile`), in which norms, rotation and residual sums are a pass each; PyTorch chooses the products and
the attention. One compilation serves every layer of a model, whose weights are its arguments.

* Queries, keys and values come from one product; the scales of the norms are in its weights, and the two halves of
  rotated pairs lie apart in each head (queries and keys alike, so their products stay), which makes them one stretch.
* Where the last position alone is read, the last layer makes queries, and all that follows them, for it alone.
* The start token is a position like any other: attention without a mask of one's own is the fast one.
* Weights are copied in the type of the products. The residual stream, the norms and the rotation are float32.

``TORCHDYNAMO_DISABLE=1`` runs the same functions eagerly. Not measured on a GPU yet.

Source: GPT-PPG (arXiv 2503.08015) for the function; our decision for the rest.
"""

import importlib.util
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.encoders.ppg_gpt_frozen import Affine, affine, affine_after
from models.encoders.ppg_gpt_layers import NORM_EPS, GPTLayer, PatchEmbedding
from models.encoders.readout_names import needs_every_position
from models.encoders.readouts import position_moments, read_out

Function = TypeVar("Function", bound=Callable[..., object])


class LayerWeights(NamedTuple):
    """The weights of one layer, as `layer_outputs` takes them."""

    qkv: Affine
    concat: Affine
    widen: Affine
    narrow: Affine


class Turns(NamedTuple):
    """Cosine and sine of each position's rotation, (positions, pairs) each."""

    cosine: Tensor
    sine: Tensor


class CompiledPPGGPT:
    """A copy of a PPG-GPT's weights for inference; later changes of the model do not reach it.

    Parameters
    ----------
    n_patches : of a window
    dtype : of the products, float32 or bfloat16
    compiled : whether `torch.compile` makes one function of each layer
    """

    @torch.no_grad()
    def __init__(
        self,
        patch_embedding: PatchEmbedding,
        layers: Iterable[nn.Module],
        *,
        n_patches: int,
        dtype: torch.dtype,
        compiled: bool,
    ):
        layers = [layer for layer in layers if isinstance(layer, GPTLayer)]
        self._start = patch_embedding.sep.detach().float().clone()
        self._patches = _copied(affine(patch_embedding.linear), torch.float32)
        self._layers = [_weights(layer, dtype) for layer in layers]
        attention = layers[0].attn
        self._n_heads = attention.n_heads
        angles = attention.attention.rotary_embed.freqs.float()
        angles = torch.arange(n_patches + 1, device=angles.device)[:, None] * angles
        self._turns = Turns(angles.cos(), angles.sin())
        own = _compiled if compiled else _as_it_is
        self._layer, self._moments = own(layer_outputs), own(position_moments)

    @torch.no_grad()
    def __call__(self, patches: Float[Tensor, "n patches samples"], readout: str) -> Float[Tensor, "n width"]:
        """Return a read-out of the layers' outputs, one of ``models.encoders.readouts.READOUTS``."""
        outputs = self._outputs(patches, every_position=needs_every_position(readout))
        return read_out(readout, outputs, self._moments)

    def _outputs(self, patches: Tensor, *, every_position: bool) -> Iterator[Tensor]:
        """Yield the output of each layer, of the last one perhaps the last position alone."""
        tokens = F.linear(patches, *self._patches)
        x = torch.cat([self._start.expand(len(tokens), 1, -1), tokens], dim=1)
        for weights in self._layers[:-1]:
            x = self._layer(x, weights, self._turns, self._n_heads, False)
            yield x[:, 1:]
        x = self._layer(x, self._layers[-1], self._turns, self._n_heads, not every_position)
        yield x[:, 1:] if every_position else x


@no_type_check  # here and below: what is compiled cannot be traced through a check of types
def layer_outputs(x: Tensor, weights: LayerWeights, turns: Turns, n_heads: int, last_only: bool) -> Tensor:
    """Return one layer's output at all positions, or at the last alone.

    Parameters
    ----------
    x : (n, positions, width) float32, the start token's first
    """
    dtype = weights.qkv.weight.dtype
    normed = _normed(x).to(dtype)
    if last_only:
        width = x.shape[-1]
        for_q, for_kv = (_rows(weights.qkv, part) for part in (slice(width), slice(width, None)))
        (q,) = _heads(F.linear(normed[:, -1:], *for_q), 1, n_heads)
        k, v = _heads(F.linear(normed, *for_kv), 2, n_heads)
        x = x[:, -1:]
    else:
        q, k, v = _heads(F.linear(normed, *weights.qkv), 3, n_heads)
    # The last position may see all others, so it needs no mask.
    mixed = F.scaled_dot_product_attention(_turned(q, turns), _turned(k, turns), v, is_causal=not last_only)
    x = x + F.linear(mixed.transpose(1, 2).flatten(2), *weights.concat)
    hidden = F.linear(_normed(x).to(dtype), *weights.widen).relu()
    return x + F.linear(hidden, *weights.narrow)


@no_type_check
def _rows(part: Affine, rows: slice) -> Affine:
    return Affine(part.weight[rows], part.bias[rows])


@no_type_check
def _heads(x: Tensor, parts: int, n_heads: int) -> tuple[Tensor, ...]:
    """Return `parts` of (n, heads, positions, d_head)."""
    return x.unflatten(-1, (parts, n_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


@no_type_check
def _normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)


@no_type_check
def _turned(x: Tensor, turns: Turns) -> Tensor:
    """Rotate; the positions are the last ones of the window, the pairs' first halves stand before their second."""
    cosine, sine = (table[-x.shape[2] :] for table in turns)
    pairs = cosine.shape[1]
    first, second = x[..., :pairs].float(), x[..., pairs : 2 * pairs].float()
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return torch.cat([turned.to(x.dtype), x[..., 2 * pairs :]], dim=-1)


def _weights(layer: GPTLayer, dtype: torch.dtype) -> LayerWeights:
    attention, norm = layer.attn, layer.norm_1
    q, k, v = (affine_after(norm, linear) for linear in (attention.w_q, attention.w_k, attention.w_v))
    order = _halves_apart(len(q.bias), attention.n_heads, attention.attention.rotary_embed.freqs.numel())
    turned = [Affine(part.weight[order], part.bias[order]) for part in (q, k)]
    qkv = Affine(*(torch.cat([getattr(part, field) for part in (*turned, v)]) for field in Affine._fields))
    parts = (
        qkv,
        affine(attention.w_concat),
        affine_after(layer.norm_2, layer.ffn.linear1),
        affine(layer.ffn.linear2),
    )
    return LayerWeights(*(_copied(part, dtype) for part in parts))


def _halves_apart(width: int, n_heads: int, pairs: int) -> Tensor:
    """Return the order of a product's outputs in which each head's pairs have all their first halves first."""
    head = torch.arange(width // n_heads)
    order = torch.cat([head[0 : 2 * pairs : 2], head[1 : 2 * pairs : 2], head[2 * pairs :]])
    return (torch.arange(n_heads)[:, None] * len(head) + order).flatten()


def _copied(part: Affine, dtype: torch.dtype) -> Affine:
    return Affine(*(tensor.detach().to(dtype, copy=True).contiguous() for tensor in part))


def can_compile(device: torch.device) -> bool:
    """Return whether `torch.compile` makes code for a GPU here: by Triton, from compute capability 7 on."""
    there = importlib.util.find_spec("triton") is not None
    return there and torch.cuda.get_device_capability(device) >= (7, 0)


MOST_KINDS = 64
"""Models, batches and precisions that one process compiles, where PyTorch counts them together."""


def _as_it_is(function: Function) -> Function:
    return function


def _compiled(function: Function) -> Function:
    """Compile for one shape at a time; a model's count of compilations is its own where PyTorch can keep it so."""
    how: dict[str, Any] = {"fullgraph": True, "dynamic": False}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        how["isolate_recompiles"] = True
    else:  # one count for all models, batches and precisions of the process; beyond it PyTorch raises
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, MOST_KINDS)  # pyright: ignore
    return torch.compile(function, **how)  # pyright: ignore[reportReturnType]
