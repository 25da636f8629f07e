"""What every encoder must hold: its promise, its own window alone, the same bits always; none may be forgotten."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import get_type_hints

import pytest
import torch
from torch import Tensor, nn

from models.encoders import base
from models.encoders.base import Encoder
from models.encoders.papagei import PaPaGeiS
from models.encoders.ppg_gpt import PPGGPT
from models.encoders.pulse.features import PulseFeatures
from models.encoders.pulse_ppg import PulsePPG
from models.encoders.readout_names import READOUTS
from pipeline.embedding.encoders import make_encoder
from pipeline.testing.conformance import forgotten
from pipeline.testing.networks import seeded

BATCH = 8
"""Windows a pass in this module: the rules are the same for each number, and the large networks are slow."""


READ_OUT = tuple(f"ppg_gpt_1m+{readout}" for readout in READOUTS if readout != "last")

ENCODERS: dict[str, tuple[type, Callable[[], Encoder]]] = {
    "ppg_gpt_1m": (PPGGPT, lambda: make_encoder("ppg_gpt_1m", device="cpu")),
    "ppg_gpt_1m_random": (PPGGPT, lambda: make_encoder("ppg_gpt_1m_random", device="cpu")),
    **{name: (PPGGPT, functools.partial(make_encoder, name, device="cpu")) for name in READ_OUT},
    "ppg_gpt_1m, bfloat16": (
        PPGGPT, lambda: make_encoder("ppg_gpt_1m", precision="bfloat16", device="cpu"),
    ),
    "papagei_s": (PaPaGeiS, lambda: seeded(PaPaGeiS)),
    "pulse_ppg": (PulsePPG, lambda: seeded(PulsePPG)),
    "pulse_features": (PulseFeatures, lambda: make_encoder("pulse_features", device="cpu")),
}  # fmt: skip
NETWORKS = [name for name, (class_, _) in ENCODERS.items() if issubclass(class_, nn.Module)]


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "EMBED_BATCH", BATCH)
        yield


@functools.cache
def built(name: str) -> Encoder:
    return ENCODERS[name][1]()


@functools.cache
def rows(name: str) -> tuple[Tensor, Tensor]:
    """Return more windows than a batch, and their embeddings in one call."""
    windows = windows_for(built(name), BATCH + 3)
    return windows, built(name).embed(windows)


def windows_for(encoder: Encoder, n: int) -> Tensor:
    return torch.rand(n, encoder.samples_per_window, generator=torch.Generator().manual_seed(7))


@pytest.fixture(params=ENCODERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def encoder(name: str) -> Encoder:
    return built(name)


def test_no_encoder_is_forgotten() -> None:
    assert forgotten(Encoder, (class_ for class_, _ in ENCODERS.values())) == []


def test_keeps_the_protocol(name: str, encoder: Encoder) -> None:
    assert type(encoder) is ENCODERS[name][0]
    assert isinstance(encoder, Encoder)
    types = {
        member: get_type_hints(getattr(Encoder, member).fget)["return"]
        for member in ("name", "width", "sampling_rate_hz", "samples_per_window", "weights_hash")
    }
    assert {member: type(getattr(encoder, member)) for member in types} == types
    assert encoder.name
    assert encoder.samples_per_window == 30 * encoder.sampling_rate_hz
    assert len(bytes.fromhex(encoder.weights_hash)) == 32


def test_names_and_hashes_tell_encoders_apart() -> None:
    names = {"ppg_gpt_1m", "ppg_gpt_1m_random", "papagei_s", "pulse_ppg", "pulse_features", *READ_OUT}
    assert {built(name).name for name in names} == names
    hashes = [built(name).weights_hash for name in names - {*READ_OUT}]
    assert len(set(hashes)) == len(hashes)
    read_out = {built(name).weights_hash for name in READ_OUT}
    assert read_out == {built("ppg_gpt_1m").weights_hash}, "another read-out alone"


def test_one_finite_row_a_window_of_the_promised_width(name: str, encoder: Encoder) -> None:
    windows, whole = rows(name)
    assert whole.shape == (len(windows), encoder.width)
    assert whole.dtype == torch.float32
    assert whole.isfinite().all()
    assert len(torch.unique(whole, dim=0)) == len(windows), "windows differ, and so do their vectors"


def test_an_empty_batch(encoder: Encoder) -> None:
    assert encoder.embed(windows_for(encoder, 0)).shape == (0, encoder.width)


@pytest.mark.parametrize("change", [-1, 1])
def test_windows_of_another_length_are_refused(encoder: Encoder, change: int) -> None:
    with pytest.raises(ValueError, match=f"needs {encoder.samples_per_window}"):
        encoder.embed(torch.zeros(2, encoder.samples_per_window + change))


def test_a_row_depends_on_its_own_window_alone(name: str, encoder: Encoder) -> None:
    windows, whole = rows(name)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(1))
    assert torch.equal(encoder.embed(windows[order]), whole[order]), "another place"
    assert torch.equal(encoder.embed(windows[4:5]), whole[4:5]), "no neighbours"
    cuts = [0, 2, BATCH - 1, len(windows)]
    parts = [encoder.embed(windows[a:b]) for a, b in itertools.pairwise(cuts)]
    assert torch.equal(torch.cat(parts), whole), "other batches"
    others = windows.clone()
    others[1::2] = 0.0
    others[1] = 1e6
    assert torch.equal(encoder.embed(others)[::2], whole[::2]), "other neighbours"


def test_embeddings_take_no_part_in_a_gradient(encoder: Encoder) -> None:
    few = windows_for(encoder, 3).requires_grad_()
    assert not encoder.embed(few).requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_is_frozen(name: str) -> None:
    encoder = built(name)
    assert isinstance(encoder, nn.Module)
    windows, whole = rows(name)
    few = windows[:3].clone().requires_grad_()
    before = encoder.weights_hash
    for training in (False, True, False):
        encoder.train(training)
        embedded = encoder.embed(few)
        assert not embedded.requires_grad
        assert torch.equal(embedded, whole[:3]), "no dropout, no statistics of the batch"
        assert encoder.training == training
    assert encoder.weights_hash == before, "running statistics stay"
    assert few.grad is None


def test_built_twice_it_gives_the_same_bits(name: str) -> None:
    windows, whole = rows(name)
    again = ENCODERS[name][1]()
    assert again.weights_hash == built(name).weights_hash
    assert torch.equal(again.embed(windows[:2]), whole[:2])


def test_bits_do_not_depend_on_the_number_of_threads(name: str, encoder: Encoder) -> None:
    windows, whole = rows(name)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            assert torch.equal(encoder.embed(windows), whole)
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_hash_and_the_embedding_follow_each_weight(name: str) -> None:
    encoder = ENCODERS[name][1]()
    assert isinstance(encoder, nn.Module)
    seen = {encoder.weights_hash}
    tensors = [tensor for tensor in encoder.state_dict().values() if tensor.is_floating_point()]
    tensors = [*tensors[:: len(tensors) // 8], tensors[-1]]
    for tensor in tensors:
        value = tensor.flatten()[-1].clone()
        with torch.no_grad():
            tensor.view(-1)[-1] = value * 2 + 1e-3
        seen.add(encoder.weights_hash)
        with torch.no_grad():
            tensor.view(-1)[-1] = value
    assert len(seen) == 1 + len(tensors)
    assert encoder.weights_hash == built(name).weights_hash
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.1)
    windows, whole = rows(name)
    assert not torch.equal(encoder.embed(windows[:2]), whole[:2])
