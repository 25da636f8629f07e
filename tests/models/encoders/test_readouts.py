"""Every read-out against layers spelt out in float64, in numbers that are committed, and in both forward passes."""

import functools
import itertools
import pickle

import pytest
import torch
from torch import Tensor

from benchmarks.plain_ppg_gpt import plain_outputs
from models.encoders.base import EMBED_BATCH
from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from models.encoders.readout_names import READOUTS, readout_width
from models.encoders.readouts import read_out

TINY = PPGGPTConfig(d_model=32, n_layers=3, n_heads=2)
GOLDEN = {
    "last": [-1.057436, 0.619016, -0.992647, -1.536285, 0.247863, -0.988699, 1.032161],
    "mean": [-1.377401, 0.329439, -1.022498, -1.310342, 0.295192, -1.055506, 0.981520],
    "layers": [-1.334480, -0.391172, -1.022498, -1.323906, -0.370344, -1.055506, 0.746598],
    "last+spread": [-1.057436, 0.333569, 0.359209, -1.536285, 0.191420, 0.356797, 0.744930],
    "mean+spread": [-1.377401, 0.333569, 0.359209, -1.310342, 0.191420, 0.356797, 0.709883],
    "layers+spread": [-1.334480, 0.216691, 0.359209, -1.323906, 0.143801, 0.356797, 0.542868],
}
"""Of `pulses` by `PPGGPT.random("1m")`, from `reference` in float64: the first and the last window's first, middle and
last number, and the root mean square over both."""
LARGER = {
    ("19m", "last"): [0.552493, -0.983796, 0.206690, 0.653549, -1.321514, 0.069557, 1.066390],
    ("19m", "mean"): [0.546366, -1.163087, -0.059067, 0.642344, -1.119476, 0.045105, 0.992055],
    ("19m", "layers"): [0.051194, -0.116677, -0.059067, 0.041305, -0.089352, 0.045105, 0.775957],
    ("19m", "last+spread"): [0.552493, 0.117703, 0.174726, 0.653549, 0.134466, 0.159680, 0.772174],
    ("19m", "mean+spread"): [0.546366, 0.117703, 0.174726, 0.642344, 0.134466, 0.159680, 0.720934],
    ("19m", "layers+spread"): [0.051194, 0.070720, 0.174726, 0.041305, 0.073164, 0.159680, 0.565450],
    ("85m", "last"): [0.778922, -1.913909, 1.062034, 0.579530, -2.177763, 1.010516, 1.365912],
    ("85m", "mean"): [1.021701, -2.067886, 0.877519, 1.190526, -2.042527, 0.584734, 1.287426],
    ("85m", "layers"): [0.179697, 0.998815, 0.877519, 0.191477, 1.051433, 0.584734, 0.985800],
    ("85m", "last+spread"): [0.778922, 0.164528, 0.187251, 0.579530, 0.312043, 0.254485, 0.993189],
    ("85m", "mean+spread"): [1.021701, 0.164528, 0.187251, 1.190526, 0.312043, 0.254485, 0.939308],
    ("85m", "layers+spread"): [0.179697, 0.066411, 0.187251, 0.191477, 0.109695, 0.254485, 0.719577],
}
"""The same of larger sizes. 345m and 1b are the same code; their float64 reference takes minutes and gigabytes."""


def pulses() -> Tensor:
    """Two windows of pulses that breathe, made of no random number."""
    time = torch.arange(1200, dtype=torch.float64) / 40
    beat = 2 * torch.pi * torch.tensor([[1.1], [1.7]]) * time
    wave = beat.sin() + 0.4 * (2 * beat + 1).sin() + 0.3 * (2 * torch.pi * 0.25 * time).sin()
    return ((wave - wave.amin(1, keepdim=True)) / (wave.amax(1) - wave.amin(1))[:, None]).float()


def windows(n: int) -> Tensor:
    return torch.rand(n, 1200, generator=torch.Generator().manual_seed(5))


def model_of(readout: str, precision: str = "float32") -> PPGGPT:
    model = PPGGPT.random("1m", precision=precision)
    model.readout = readout
    return model


def reference(readout: str, model: PPGGPT, x: Tensor) -> Tensor:
    """Return the embedding in float64, from every layer's output at every position."""
    weights = {name: value.double() for name, value in model.state_dict().items()}
    outputs = plain_outputs(weights, model.config.n_layers, model.config.n_heads, x.double())
    layers = [x[:, 1:].detach().numpy() for x in outputs]
    kind, _, spread = readout.partition("+")
    level = {
        "last": lambda: [layers[-1][:, 29]],
        "mean": lambda: [layers[-1].mean(axis=1)],
        "layers": lambda: [layer.mean(axis=1) for layer in layers],
    }[kind]()
    spreads = [layer.std(axis=1, ddof=0) for layer in (layers if kind == "layers" else layers[-1:])]
    return torch.cat([torch.from_numpy(part) for part in (level + spreads if spread else level)], dim=1)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


def test_there_are_six() -> None:
    assert READOUTS == ("last", "mean", "layers", "last+spread", "mean+spread", "layers+spread")
    assert [readout_width(readout, 128, 5) for readout in READOUTS] == [128, 128, 640, 256, 256, 1280]


@pytest.mark.parametrize("readout", READOUTS)
def test_golden_numbers(readout: str) -> None:
    assert told(model_of(readout)) == pytest.approx(GOLDEN[readout], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("scale", ["19m", pytest.param("85m", marks=pytest.mark.slow)])
def test_golden_numbers_of_larger_sizes(scale: str) -> None:
    model = PPGGPT.random(scale)
    for readout in READOUTS:
        model.readout = readout
        assert told(model) == pytest.approx(LARGER[scale, readout], rel=1e-4, abs=1e-5), readout


def told(model: PPGGPT) -> list[float]:
    """Return what the golden numbers hold of a model."""
    embedded = model.embed(pulses())
    places = (0, embedded.shape[1] // 2, -1)
    return [float(row[place]) for row in embedded for place in places] + [
        float(embedded.square().mean().sqrt())
    ]


@pytest.mark.parametrize("readout", READOUTS)
def test_both_forward_passes_equal_the_reference(readout: str) -> None:
    model, x = model_of(readout), windows(EMBED_BATCH + 3)
    expected = reference(readout, model, x)
    assert expected.shape == (len(x), model.width)
    for embedded in (model.embed(x), model.features(x).detach()):
        assert relative_error(embedded, expected) < 1e-5
        parts = zip(embedded.split(128, 1), expected.split(128, 1), strict=True)
        assert max(relative_error(part, truth) for part, truth in parts) < 1e-4, "each layer and spread alone"
    assert 0 < relative_error(model_of(readout, "bfloat16").embed(x), expected) < 1e-2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("readout", READOUTS)
def test_a_row_depends_on_its_own_window_alone(readout: str, precision: str) -> None:
    model, x = model_of(readout, precision), windows(EMBED_BATCH + 9)
    whole = model.embed(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.embed(x[order]), whole[order])
    cuts = [0, 1, 12, len(x)]
    assert torch.equal(torch.cat([model.embed(x[a:b]) for a, b in itertools.pairwise(cuts)]), whole)
    assert torch.equal(pickle.loads(pickle.dumps(model)).embed(x[:2]), whole[:2])
    assert model.weights_hash == model_of("last").weights_hash, "a read-out changes no weight"


@functools.cache
def embedded(readout: str, precision: str) -> Tensor:
    return model_of(readout, precision).embed(windows(5))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_wider_readout_begins_with_the_bits_of_the_narrower(precision: str) -> None:
    """A later layer or a spread beside it changes nothing of what was read before."""
    mean, layers = embedded("mean", precision), embedded("layers", precision)
    assert torch.equal(layers[:, -128:], mean)
    assert torch.equal(embedded("mean+spread", precision)[:, :128], mean)
    assert torch.equal(embedded("layers+spread", precision)[:, :640], layers)
    assert torch.equal(
        embedded("layers+spread", precision)[:, -128:], embedded("mean+spread", precision)[:, 128:]
    )
    assert torch.equal(
        embedded("last+spread", precision)[:, 128:], embedded("mean+spread", precision)[:, 128:]
    )


def test_spread_of_small_differences_on_a_large_level_is_kept() -> None:
    small = torch.randn(4, 30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x = (1e4 + small).float()
    truth = x.double().std(dim=1, correction=0)
    assert torch.allclose(read_out("mean+spread", [x])[:, 8:].double(), truth, rtol=1e-3)


@pytest.mark.parametrize("readout", READOUTS)
def test_gradients_are_finite_where_positions_are_equal(readout: str) -> None:
    layers = [torch.full((2, 30, 4), 0.5, requires_grad=True), torch.randn(2, 30, 4).requires_grad_()]
    read_out(readout, iter(layers)).sum().backward()
    grads = [layer.grad for layer in layers if layer.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert len(grads) == (2 if readout.startswith("layers") else 1)


def test_it_can_be_trained_through() -> None:
    model = PPGGPT(TINY, readout="layers+spread").eval()
    model.features(windows(2)).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name, _ in model.named_parameters()} - reached == {"head.weight", "head.bias"}


def test_layers_are_taken_one_by_one() -> None:
    """No layer's output is held longer than until the next one: the frozen pass overwrites it."""
    x = torch.zeros(1, 30, 2)

    def overwriting():
        for level in (1.0, 2.0, 3.0):
            yield x.fill_(level)

    assert read_out("layers", overwriting()).tolist() == [[1, 1, 2, 2, 3, 3]]
    assert read_out("mean", overwriting()).tolist() == [[3, 3]]


@pytest.mark.parametrize("readout", ["", "middle", "spread", "+spread", "mean+spread+spread", "layers+mean"])
def test_an_unknown_readout_is_refused(readout: str) -> None:
    with pytest.raises(ValueError, match="must be one of last, mean, layers"):
        PPGGPT(TINY, readout=readout)
    model = PPGGPT(TINY)
    with pytest.raises(ValueError, match="must be one of last, mean, layers"):
        model.readout = readout
    assert (model.readout, model.width) == ("last", 32)
