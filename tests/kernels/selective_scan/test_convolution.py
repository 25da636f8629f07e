"""The causal convolution: the compiled kernel against plain PyTorch, and both against conv1d."""

import pytest
import torch

from kernels.selective_scan import causal_conv1d, causal_conv1d_step, convolution_operator, validation
from kernels.selective_scan.convolution import check_convolution

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 1e-3}


def inputs(channels=7, width=4, length=70, dtype=torch.float64, sequences=2, batch=2):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return (
        normal(batch, channels, length),
        normal(channels, width),
        normal(channels),
        normal(sequences, channels, width - 1),
    )


def results(backend, activation, cu_seqlens, x, weight, bias, state):
    y, final = causal_conv1d(
        x, weight, bias, activation=activation, initial_state=state, return_final_state=True,
        cu_seqlens=cu_seqlens, backend=backend,
    )  # fmt: skip
    loss = (y * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum() + final.square().sum()
    return y, final, *torch.autograd.grad(loss, [x, weight, bias, state], materialize_grads=True)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("lengths", [None, (5, 0, 33, 1, 31)])
@pytest.mark.parametrize(("channels", "width"), [(7, 4), (40, 3), (600, 1), (1, 5)])
@pytest.mark.parametrize("activation", ["silu", None])
def test_compiled_agrees_with_pytorch(dtype, lengths, channels, width, activation):
    bounds = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)
    sequences, batch = (2, 2) if lengths is None else (5, 1)
    tensors = inputs(channels, width, dtype=dtype, sequences=sequences, batch=batch)
    truth = results("reference", activation, bounds, *(t.detach().double().requires_grad_() for t in tensors))
    for ours, true in zip(results("cpu", activation, bounds, *tensors), truth, strict=True):
        assert (ours.double() - true).norm() <= TOLERANCE[dtype] * true.norm().clamp_min(30)


def test_agrees_with_conv1d():
    x, weight, bias, _ = inputs()
    truth = torch.nn.functional.conv1d(x, weight[:, None], bias, padding=3, groups=7)[..., :70]
    torch.testing.assert_close(causal_conv1d(x, weight, bias, activation=None), truth)


def test_gradcheck():
    x, weight, bias, state = inputs(channels=3, length=5)

    def convolve(x, weight, bias, state):
        return causal_conv1d(x, weight, bias, initial_state=state, return_final_state=True, backend="cpu")

    assert torch.autograd.gradcheck(convolve, (x, weight, bias, state))


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("used", [0, 1])
def test_a_second_derivative_is_refused(number, used):
    tensors = inputs(length=5)
    x, weight, bias, state = tensors

    def first(**options):
        outputs = causal_conv1d(
            x, weight, bias, initial_state=state, return_final_state=True, backend="cpu"
        )  # fmt: skip
        return torch.autograd.grad(
            outputs[used].square().sum(), tensors, allow_unused=True, materialize_grads=True, **options
        )

    gradients = first(create_graph=True)
    assert all(map(torch.equal, gradients, first()))
    with pytest.raises(RuntimeError, match="cannot be differentiated again: the convolution's kernels"):
        torch.autograd.grad(gradients[number].sum(), x, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("lengths", [None, (5, 0, 3)])
def test_traced_and_eager_calls_give_the_same_bits(compiler, lengths):
    torch.compiler.reset()
    bounds = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)
    sequences, batch = (2, 2) if lengths is None else (3, 1)
    tensors = inputs(length=8, dtype=torch.float32, sequences=sequences, batch=batch)

    def both(convolve):
        outputs = convolve(*tensors)
        return [*outputs, *torch.autograd.grad(outputs, tensors, [torch.ones_like(t) for t in outputs])]

    def convolve(x, weight, bias, state):
        return causal_conv1d(
            x, weight, bias, initial_state=state, return_final_state=True, cu_seqlens=bounds, backend="cpu"
        )  # fmt: skip

    traced = both(torch.compile(convolve, backend=compiler, fullgraph=True))
    assert all(map(torch.equal, traced, both(convolve)))


def test_without_gradients_the_bits_are_the_same_and_nothing_is_kept():
    x, weight, bias, _ = inputs()
    y = causal_conv1d(x, weight, bias, backend="cpu")
    with torch.no_grad():
        plain = causal_conv1d(x, weight, bias, backend="cpu")
    assert torch.equal(plain, y)
    assert plain.grad_fn is None
    assert causal_conv1d(x.detach(), weight.detach(), bias.detach(), backend="cpu").grad_fn is None


def test_halves_and_single_steps_equal_the_whole():
    x, weight, bias, state = inputs()
    y, final = causal_conv1d(x, weight, bias, initial_state=state, return_final_state=True)
    first, middle = causal_conv1d(x[..., :33], weight, bias, initial_state=state, return_final_state=True)
    second, end = causal_conv1d(x[..., 33:], weight, bias, initial_state=middle, return_final_state=True)
    torch.testing.assert_close(torch.cat([first, second], -1), y)
    torch.testing.assert_close(end, final)
    for t in range(5):
        out, state = causal_conv1d_step(state, x[..., t], weight, bias)
        torch.testing.assert_close(out, y[..., t])


@pytest.mark.parametrize(("name", "changes"), [
    ("x", {"x": torch.zeros(2, 7)}),
    ("weight", {"weight": torch.zeros(6, 4)}),
    ("weight", {"weight": torch.zeros(7, 4, dtype=torch.float16)}),
    ("bias", {"bias": torch.zeros(6)}),
    ("activation", {"activation": "relu"}),
    ("initial_state", {"initial_state": torch.zeros(2, 7, 4)}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([0, 8])}),
])  # fmt: skip
def test_bad_input_is_named(name, changes):
    arguments = {"x": torch.zeros(2, 7, 8), "weight": torch.zeros(7, 4), "bias": torch.zeros(7)}
    with pytest.raises(ValueError, match=rf"^{name} has .*; it needs "):
        causal_conv1d(**{**arguments, **changes})


@pytest.fixture
def kinds(monkeypatch):
    """Remember no kind of call from the tests before."""
    fresh = validation.Kinds(check_convolution)
    monkeypatch.setattr(convolution_operator, "_kinds", fresh)
    return fresh


def test_a_kind_is_checked_once_with_its_activation(kinds, monkeypatch):
    checked = []
    monkeypatch.setattr(kinds, "check", lambda *_tensors, activation: checked.append(activation))
    x, weight, bias, _ = inputs()
    for activation in ("silu", None, "silu", None):
        causal_conv1d(x, weight, bias, activation=activation)
    assert checked == ["silu", None]


@pytest.mark.parametrize("activation", ["relu", ["silu"]])
def test_an_unknown_activation_is_refused_after_a_good_call(activation, kinds):
    x, weight, bias, _ = inputs()
    causal_conv1d(x, weight, bias)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^activation has value .*; it needs None or 'silu'"):
            causal_conv1d(x, weight, bias, activation=activation)


@pytest.mark.parametrize("lengths", [None, (5, 0, 3)])
@pytest.mark.parametrize("full", [True, False])
def test_the_operators_do_what_they_tell_a_compiler(lengths, full):
    """Shapes, strides and gradients as foretold, and nothing written to: PyTorch's own check of an operator."""
    bounds = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)
    sequences, batch = (2, 2) if lengths is None else (3, 1)
    x, weight, bias, state = inputs(length=8, dtype=torch.float32, sequences=sequences, batch=batch)
    given = (x, weight, *((bias, state) if full else (None, None)), bounds)
    torch.library.opcheck(convolution_operator.convolve_operator, (*given, True, "cpu"))
    plain = [None if t is None else t.detach() for t in given]
    outer = torch.ones_like(x).detach(), torch.ones_like(state).detach()
    torch.library.opcheck(convolution_operator.convolve_backward_operator, (*plain, *outer, True, "cpu"))


@pytest.mark.parametrize("pack", [torch.clone, lambda t: t.mT.contiguous().mT if t.dim() > 1 else t.clone()])
def test_saved_tensors_may_come_back_in_another_layout(pack):
    tensors = inputs()
    expected = results("cpu", "silu", None, *tensors)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        assert all(map(torch.equal, results("cpu", "silu", None, *tensors), expected))


def test_gradients_of_halves_have_the_dtype_of_what_was_given():
    x, weight, bias, _ = inputs(dtype=torch.bfloat16)
    y = causal_conv1d(x, weight, bias, backend="cpu")
    found = torch.autograd.grad(y.float().square().sum(), [x, weight, bias])
    wide = [t.detach().float().requires_grad_() for t in (x, weight, bias)]
    true = torch.autograd.grad(causal_conv1d(*wide, backend="reference").square().sum(), wide)
    for ours, wanted in zip(found, true, strict=True):
        assert ours.dtype is torch.bfloat16
        torch.testing.assert_close(ours.float(), wanted, rtol=3e-2, atol=3e-2 * float(wanted.abs().max()))


def test_a_tangent_is_refused_and_not_dropped():
    x, weight, _, _ = (t.detach() for t in inputs())

    def convolve(x, backend="cpu"):
        return causal_conv1d(x, weight, backend=backend)

    with pytest.raises(
        RuntimeError, match=r"No tangents are computed here .*backend 'reference' gives others too"
    ):
        torch.func.jvp(convolve, (x,), (torch.ones_like(x),))
    assert torch.func.jvp(lambda x: convolve(x, "reference"), (x,), (torch.ones_like(x),))[1].norm() > 0
