"""PPG-GPT: a causal transformer over the 30 one-second patches of a 30 s PPG window.

Source: GPT-PPG (arXiv 2503.08015) as its laboratory's public code computes it. Names of parameters follow
that code's checkpoints.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.encoders.base import EMBED_BATCH, embed_in_batches
from models.encoders.ppg_gpt_compiled import CompiledPPGGPT, can_compile
from models.encoders.ppg_gpt_frozen import FrozenPPGGPT
from models.encoders.ppg_gpt_layers import GPTLayer, PatchEmbedding
from models.encoders.projection import Projection
from models.encoders.published_weights import PREFIXES, load_strictly, read_state_dict, weights_hash
from models.encoders.readout_names import checked_readout, needs_every_position, readout_width
from models.encoders.readouts import read_out
from models.errors import CheckpointMismatch

WINDOW_SAMPLES = 1200
SAMPLING_RATE_HZ = 40.0
SQUEEZE_MARGIN = 0.1
"""A logit-Laplace model sees 0.8 x + 0.1, which keeps the logit finite at both ends of [0, 1]."""
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class PPGGPTConfig:
    """Sizes of a PPG-GPT.

    Attributes
    ----------
    d_model : width of the residual stream, and of the embedding
    n_layers : transformer layers
    n_heads : attention heads; half of each head's dimensions rotate in pairs, so d_model / n_heads is a
        multiple of 4
    patch : samples per patch, 40 = 1 s
    head : outputs per position: 2 x patch is logit-Laplace (mu, log b), patch is a plain regression (MSE)
    dropout : share dropped after each sub-layer, in training mode alone
    """

    d_model: int
    n_layers: int
    n_heads: int
    patch: int = 40
    head: int = 80
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.d_model % (4 * self.n_heads):
            raise ValueError(
                f"d_model is {self.d_model}; it must be a multiple of 4 n_heads = {4 * self.n_heads}."
            )
        if WINDOW_SAMPLES % self.patch:
            raise ValueError(f"patch is {self.patch}; it must divide a window's {WINDOW_SAMPLES} samples.")
        if self.head not in (self.patch, 2 * self.patch):
            raise ValueError(
                f"head is {self.head}; it must be {self.patch} (MSE) or {2 * self.patch} (Laplace)."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1).")

    @property
    def is_laplace(self) -> bool:
        """Whether the head gives a logit-Laplace density, and input and target are squeezed."""
        return self.head == 2 * self.patch


PPG_GPT_SCALES: dict[str, PPGGPTConfig] = {
    "1m": PPGGPTConfig(d_model=128, n_layers=5, n_heads=4),
    "19m": PPGGPTConfig(d_model=512, n_layers=6, n_heads=8),
    "85m": PPGGPTConfig(d_model=768, n_layers=12, n_heads=12),
    "345m": PPGGPTConfig(d_model=1088, n_layers=24, n_heads=17),
    "1b": PPGGPTConfig(d_model=1664, n_layers=30, n_heads=26),
}
"""1m and 19m are the published layer tables. 85m fits its name; for 345m and 1b no layer table is public:
ours have 64-wide heads and a parameter count that fits the name (our decision)."""


class _Frozen(NamedTuple):
    """A frozen copy and the state of the weights that it was made from.

    PyTorch counts every change in place; the parameters are held so that no new one can have the id of an old one.
    """

    state: tuple[object, ...]
    parameters: tuple[nn.Parameter, ...]
    forward: FrozenPPGGPT | CompiledPPGGPT


class PPGGPT(nn.Module):
    """The encoder: windows of 30 s at 40 Hz, scaled to [0, 1], to one vector each.

    Satisfies `models.encoders.base.Encoder`.

    Parameters
    ----------
    config : sizes
    name : what the store key, tables and reports call it; by default made from the scale
    precision : of `embed`: "float32", or "bfloat16" (relative error below 1e-2, another store key); see
        `fast_precision`
    readout : one of ``models.encoders.readouts.READOUTS``: "last", the paper's, "mean", "layers", each also with
        "+spread" (ours; each another store key)
    """

    sampling_rate_hz = SAMPLING_RATE_HZ
    samples_per_window = WINDOW_SAMPLES
    projection: Projection | None

    def __init__(
        self,
        config: PPGGPTConfig,
        *,
        name: str | None = None,
        precision: Precision = "float32",
        readout: str = "last",
    ):
        super().__init__()
        self.config = config
        self.name = name or f"ppg_gpt_{scale_of(config)}"
        self.precision: Precision = precision
        self.projection = None
        self.readout = readout
        self.patch_embedding = PatchEmbedding(config.patch, config.d_model)
        self.gpt_layers = nn.ModuleList(
            GPTLayer(config.d_model, config.n_heads, config.dropout) for _ in range(config.n_layers)
        )
        self.head = nn.Linear(config.d_model, config.head)
        self._frozen: _Frozen | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave out the frozen copy, which cannot travel; it is made again where it is needed."""
        return {**self.__dict__, "_frozen": None}

    @property
    def readout(self) -> str:
        """Which layers and positions make the embedding."""
        return self._readout

    @readout.setter
    def readout(self, readout: str) -> None:
        if self.projection is not None:
            raise ValueError(f"readout {readout!r}: the read-out of a projected model is fixed.")
        self._readout = checked_readout(readout)

    def project(self, projection: Projection, source: str = "it") -> None:
        """Embed by `projection` after the read-out.

        Raises
        ------
        CheckpointMismatch : `projection`, called `source`, was fitted for other weights or another read-out
        """
        projection.require(
            weights_hash=self.weights_hash, readout=self.readout, inputs=self.readout_width, source=source
        )
        self.projection = projection.to(self.head.weight.device)

    @property
    def projection_hash(self) -> str:
        """SHA-256 (hex) of the projection, or "none"."""
        return "none" if self.projection is None else self.projection.hash

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.readout_width if self.projection is None else self.projection.width

    @property
    def readout_width(self) -> int:
        """Length of the read-out before any projection."""
        return readout_width(self.readout, self.config.d_model, self.config.n_layers)

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) of the weights."""
        return weights_hash(self)

    @classmethod
    def random(cls, scale: str, seed: int = 0, precision: Precision = "float32") -> "PPGGPT":
        """Build a named scale with seeded random weights, called ``ppg_gpt_<scale>_random``."""
        if scale not in PPG_GPT_SCALES:
            raise ValueError(f"scale is {scale!r}; it must be one of {', '.join(PPG_GPT_SCALES)}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(PPG_GPT_SCALES[scale], name=f"ppg_gpt_{scale}_random", precision=precision).eval()

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        n_heads: int | None = None,
        *,
        name: str | None = None,
        precision: Precision = "float32",
    ) -> "PPGGPT":
        """Load ``{"model", "config"}``, ``{"model_state_dict"}``, flat safetensors or parts; sizes come from shapes.

        Parameters
        ----------
        n_heads : overrides what the checkpoint's config or its rotary frequencies say

        Raises
        ------
        CheckpointMismatch
            The file cannot be read without unpickling objects, or its keys or shapes are not a PPG-GPT's.
        """
        state, stored = read_state_dict(path, prefixes=(*PREFIXES, "gpt."))
        model = cls(config_of(state, stored, n_heads, Path(path).name), name=name, precision=precision)
        load_strictly(model, state, Path(path).name)
        return model.eval()

    def tokens(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n positions width"]:
        """Return the last layer's output at all positions; position 0 is the start token."""
        x = self.patch_embedding(self._patches(windows))
        for layer in self.gpt_layers:
            x = layer(x)
        return x

    def features(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        """Return the embedding inside the autograd graph, for fine-tuning."""
        return self._projected(read_out(self.readout, self._outputs(windows)))

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        """Return the frozen embedding, float32, by this model's read-out and projection.

        Batch-invariant: see `models.encoders.base.embed_in_batches`. On a CPU by `FrozenPPGGPT`, on a GPU by
        `CompiledPPGGPT`.
        """
        frozen = self._frozen_copy()

        def embed(x: Tensor) -> Tensor:
            return self._projected(frozen(self._patches(x), self.readout))

        return embed_in_batches(self, embed, windows, self.width)

    def loss(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, ""]:
        """Return the mean error of predicting each next patch from all before it."""
        target = self._patches(windows)
        prediction = self.head(self.tokens(windows))[:, :-1].float()
        if not self.config.is_laplace:
            return F.mse_loss(prediction, target)
        mu, log_b = prediction.unflatten(-1, (2, self.config.patch)).unbind(-2)
        return logit_laplace_nll(target, mu, log_b).mean()

    def trainable_last_layers(self, n: int) -> "PPGGPT":
        """Freeze all weights but those of the last `n` layers; the head plays no part in the embedding."""
        if not 0 <= n <= self.config.n_layers:
            raise ValueError(f"n is {n}; the model has {self.config.n_layers} layers.")
        self.requires_grad_(False)
        for layer in self.gpt_layers[self.config.n_layers - n :]:
            layer.requires_grad_(True)
        return self

    def _frozen_copy(self) -> FrozenPPGGPT | CompiledPPGGPT:
        """Return the copy of the weights as they are now."""
        parameters = tuple(self.parameters())
        state = (self.precision, *((id(p), p.data_ptr(), _version(p)) for p in parameters))
        if self._frozen is None or self._frozen.state != state:
            with torch.inference_mode(False):  # the copy outlives the caller's mode
                forward = self._copied()
            self._frozen = _Frozen(state, parameters, forward)
        return self._frozen.forward

    def _copied(self) -> FrozenPPGGPT | CompiledPPGGPT:
        n_patches, dtype = WINDOW_SAMPLES // self.config.patch, getattr(torch, self.precision)
        device = self.head.weight.device
        if device.type == "cpu":
            return FrozenPPGGPT(
                self.patch_embedding, self.gpt_layers, n_patches=n_patches, batch=EMBED_BATCH, dtype=dtype
            )
        return CompiledPPGGPT(
            self.patch_embedding,
            self.gpt_layers,
            n_patches=n_patches,
            dtype=dtype,
            compiled=can_compile(device),
        )

    def _projected(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n width"]:
        return x if self.projection is None else self.projection(x)

    def _outputs(self, windows: Float[Tensor, "n samples"]) -> Iterator[Float[Tensor, "n positions width"]]:
        """Yield each layer's output at the patches' positions, of the last layer only those that are read."""
        x = self.patch_embedding(self._patches(windows))
        *earlier, last = self.gpt_layers
        for layer in earlier:
            x = layer(x)
            yield x[:, 1:]
        yield last(x)[:, 1:] if needs_every_position(self.readout) else last(x, last_only=True)

    def _patches(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n patches patch"]:
        if windows.shape[1] != WINDOW_SAMPLES:
            raise ValueError(
                f"windows have {windows.shape[1]} samples; PPG-GPT needs {WINDOW_SAMPLES} (30 s, 40 Hz)."
            )
        if self.config.is_laplace:
            windows = windows * (1 - 2 * SQUEEZE_MARGIN) + SQUEEZE_MARGIN
        return windows.unflatten(-1, (-1, self.config.patch))


def _version(parameter: Tensor) -> object:
    """Return what differs after each change in place; one made in inference mode counts none, so it always differs."""
    return object() if parameter.is_inference() else parameter._version


def logit_laplace_nll(
    x: Float[Tensor, "*shape"], mu: Float[Tensor, "*shape"], log_b: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return -log of the logit-Laplace density at x in (0, 1), computed in log space throughout.

    log 2 + log b + log x + log(1 - x) + |logit x - mu| / b, with b held in [1e-4, e^20]. Source: GPT-PPG
    (arXiv 2503.08015) and its laboratory's code for the bounds of b.
    """
    log_b = log_b.clamp(math.log(1e-4), 20.0)
    log_x, log_rest = x.log(), torch.log1p(-x)
    return math.log(2) + log_b + log_x + log_rest + (log_x - log_rest - mu).abs() * torch.exp(-log_b)


def fast_precision(device: torch.device | str = "cpu") -> Precision:
    """Return "bfloat16" where `device` multiplies it natively, else "float32"."""
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    able = torch.cpu.get_capabilities()
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def scale_of(config: PPGGPTConfig) -> str:
    """Name the preset with these layers and widths; ``custom`` when there is none."""
    sizes = (config.d_model, config.n_layers, config.n_heads)
    names = (n for n, c in PPG_GPT_SCALES.items() if (c.d_model, c.n_layers, c.n_heads) == sizes)
    return next(names, "custom")


def config_of(
    state: dict[str, Tensor], stored: dict[str, object], n_heads: int | None, source: str
) -> PPGGPTConfig:
    """Read the sizes off a PPG-GPT state dict.

    Heads come from `n_heads`, else from the stored config, else from the rotary frequencies, whose number is
    a quarter of a head's width.
    """
    needed = ("patch_embedding.linear.weight", "gpt_layers.0.attn.attention.rotary_embed.freqs", "head.bias")
    if absent := [key for key in needed if key not in state]:
        raise CheckpointMismatch(f"{source} is no PPG-GPT: missing {', '.join(absent)}.")
    weight, freqs, bias = (state[key] for key in needed)
    d_model, patch = weight.shape
    heads = n_heads or stored.get("n_heads") or d_model // (4 * freqs.numel())
    layers = {int(key.split(".")[1]) for key in state if key.startswith("gpt_layers.")}
    try:
        return PPGGPTConfig(
            d_model=d_model, n_layers=len(layers), n_heads=int(str(heads)), patch=patch, head=bias.numel()
        )
    except ValueError as error:
        raise CheckpointMismatch(f"{source} is no PPG-GPT that this code can build: {error}") from error
