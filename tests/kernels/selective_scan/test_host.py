"""The host's side of a scan: each kind of call checked once, and autograd with and without a compiler."""

import gc
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

from kernels.selective_scan import operators, selective_scan, validation
from kernels.testing import ScanCase, make_inputs

CASE = ScanCase(channels=6, length=8, groups=2, mask=True)
DIFFERENTIABLE = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
PACK = ScanCase(batch=1, channels=6, length=40, state=16, lengths=(35, 0, 5))
CASES = st.builds(
    ScanCase,
    batch=st.integers(1, 3), channels=st.sampled_from([2, 4, 6]), length=st.integers(1, 9),
    state=st.integers(1, 5), groups=st.sampled_from([1, 2]), mask=st.just(True), channels_last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)  # fmt: skip


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    """Remember no kind of call from the tests before."""
    fresh = validation.Kinds(validation.check_scan)
    monkeypatch.setattr(operators, "_kinds", fresh)
    return fresh


def run(inputs, backend="cpu"):
    return selective_scan(**inputs, return_last_state=True, backend=backend)


def longer(name, tensor):
    return torch.cat([tensor, tensor[..., :1]], -1)


BREAKS = {
    "a longer last dimension": longer,
    "a dimension more": lambda _name, tensor: tensor[None, None],
    "an integer dtype": lambda _name, tensor: tensor.to(torch.int32),
    "a complex dtype": lambda _name, tensor: tensor.to(torch.complex64),
    "another device": lambda _name, tensor: tensor.to("meta"),
    "a list": lambda _name, tensor: tensor.tolist(),
}  # fmt: skip


def refusal(inputs):
    with pytest.raises(ValueError, match=r"^\w+ has .*; it needs ") as caught:
        run(inputs)
    return str(caught.value)


@settings(deadline=None, max_examples=60)
@given(case=CASES, name=st.sampled_from((*DIFFERENTIABLE, "step_mask")), how=st.sampled_from(list(BREAKS)))
def test_a_broken_argument_is_refused_before_and_after_its_good_kind(case, name, how):
    good = make_inputs(case)
    broken = {**good, name: BREAKS[how](name, good[name])}
    operators._kinds.passed.clear()
    cold = refusal(broken)
    run(good)
    assert refusal(broken) == cold
    run(good)
    assert refusal(broken) == cold


@pytest.mark.parametrize(
    ("bounds", "named"), [([0, 7, 9], "last"), ([1, 5, 8], "first"), ([0, 9, 8], "below")]
)
def test_bounds_of_a_pack_are_read_in_every_call_of_a_known_kind(bounds, named):
    inputs = make_inputs(ScanCase(batch=1, channels=3, length=8, lengths=(5, 3), initial=False))
    run(inputs)
    assert named in refusal({**inputs, "cu_seqlens": torch.tensor(bounds)})
    run(inputs)


def test_a_pack_in_a_batch_of_two_and_uneven_groups_are_refused_after_good_calls():
    run(make_inputs(CASE))
    inputs = make_inputs(CASE)
    assert refusal({**inputs, "cu_seqlens": torch.tensor([0, 8])}).startswith("cu_seqlens has a batch of 2")
    assert refusal({**inputs, "B": inputs["B"].repeat(1, 2, 1, 1)}).startswith("B has 4 groups")


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_of_A_that_is_not_finite_is_refused_in_every_call_on_the_cpu(backend, value):
    inputs = make_inputs(CASE)
    run(inputs, backend)
    inputs["A"] = inputs["A"].clone()
    inputs["A"][1, 2] = value
    with pytest.raises(ValueError, match=r"^A has 1 non-finite values; it needs finite values$"):
        run(inputs, backend)


class OnACard:
    """Stands for A on a GPU: counts how often its values are read, each a wait for the card."""

    is_cuda = True

    def __init__(self, tensor):
        self.tensor, self.reads = tensor, 0

    def sum(self):
        self.reads += 1
        return self.tensor.sum()

    def numel(self):
        return self.tensor.numel()

    @classmethod
    def __torch_function__(cls, function, _types, arguments=(), _options=None):
        return function(*[a.tensor if isinstance(a, cls) else a for a in arguments])


def test_on_a_gpu_A_is_read_in_anomaly_mode_only_and_never_while_a_graph_is_captured(monkeypatch):
    A = OnACard(torch.tensor([[float("nan"), 1.0]]))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    validation.check_finite(A)
    assert A.reads == 0
    with torch.autograd.set_detect_anomaly(True):
        with pytest.raises(ValueError, match=r"^A has 1 non-finite values"):
            validation.check_finite(A)
        assert A.reads == 1
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        validation.check_finite(A)
    assert A.reads == 1


def test_a_kind_is_checked_once_whatever_the_values_and_strides(kinds, monkeypatch):
    checked = []
    monkeypatch.setattr(kinds, "check", lambda *tensors: checked.append(len(tensors)))
    for seed, last in enumerate([True, False, True]):
        run(make_inputs(ScanCase(channels=6, length=8, channels_last=last), seed=seed))
    assert checked == [11]
    run(make_inputs(ScanCase(channels=6, length=9)))
    assert checked == [11, 11]


def test_a_refused_kind_is_not_remembered(kinds):
    bad = {**make_inputs(CASE), "D": torch.zeros(5)}
    assert refusal(bad) == refusal(bad)
    assert not kinds.passed


def test_remembered_kinds_are_bounded(kinds, monkeypatch):
    monkeypatch.setattr(validation, "MOST_KINDS", 3)
    for length in range(1, 12):
        run(make_inputs(ScanCase(channels=2, length=length, state=1)))
        assert 1 <= len(kinds.passed) <= 3


def test_remembered_kinds_keep_no_tensor_alive(kinds):
    inputs = make_inputs(CASE)
    watched = [weakref.ref(t) for t in inputs.values() if torch.is_tensor(t)]
    run(inputs)
    assert len(kinds.passed) == 1
    del inputs
    gc.collect()
    assert [reference() for reference in watched] == [None] * len(watched)


def test_threads_share_the_kinds(monkeypatch):
    monkeypatch.setattr(validation, "MOST_KINDS", 2)
    cases = [ScanCase(channels=2, length=length, state=1) for length in range(1, 6)] * 8
    alone = [run(make_inputs(case))[0] for case in cases]

    def call(case):
        inputs = make_inputs(case)
        assert refusal({**inputs, "D": torch.zeros(3)}).startswith("D has shape (3,)")
        return run(inputs)[0]

    with ThreadPoolExecutor(8) as threads:
        assert all(map(torch.equal, threads.map(call, cases), alone))


SECOND = """
import torch
from kernels.selective_scan import selective_scan
from kernels.testing import ScanCase, make_inputs
inputs = make_inputs(ScanCase(batch=1, channels=2, length=3, state=1))
inputs["u"].requires_grad_()
y = selective_scan(**inputs, backend="triton")
(du,) = torch.autograd.grad(y.square().sum(), inputs["u"], create_graph=True)
try:
    du.sum().backward()
except RuntimeError as error:
    print(error)
"""


AGAIN = "cannot be differentiated again: the scan's kernels give first derivatives backward alone"
ROADS = {
    "backward": lambda gradient, _: gradient.sum().backward(),
    "grad": lambda gradient, leaf: torch.autograd.grad(gradient.sum(), leaf),
    "zeros for what is not used": lambda gradient, leaf: torch.autograd.grad(
        gradient.sum(), leaf, allow_unused=True, materialize_grads=True
    ),
}


@pytest.mark.parametrize("name", ["u", "A", "initial_state"])
@pytest.mark.parametrize("road", ROADS)
def test_a_second_derivative_is_refused_in_one_sentence_on_every_road(name, road):
    """Of a sum too, whose outer gradient depends on nothing."""
    inputs = make_inputs(CASE)
    inputs[name].requires_grad_()
    (first,) = torch.autograd.grad(run(inputs)[0].sum(), inputs[name], create_graph=True)
    (plain,) = torch.autograd.grad(run(inputs)[0].sum(), inputs[name])
    assert torch.equal(first, plain)
    with pytest.raises(RuntimeError, match=AGAIN):
        ROADS[road](first, inputs[name])


def test_a_second_derivative_is_refused_by_the_kernels_of_the_gpu_too(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-W", "ignore", "-c", SECOND]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "cannot be differentiated again" in said


def gradients(inputs, wanted, scan=run):
    leaves = {
        n: t.detach().requires_grad_(n in wanted) if n in DIFFERENTIABLE else t for n, t in inputs.items()
    }
    y, last = scan(leaves)
    torch.autograd.backward([y, last], [torch.ones_like(y), torch.ones_like(last)])
    return y.detach(), last.detach(), {n: leaves[n].grad for n in DIFFERENTIABLE}


@pytest.mark.parametrize(
    "wanted", [("initial_state",), ("A",), ("u", "z"), ("B", "D"), DIFFERENTIABLE], ids="-".join
)
def test_gradients_are_those_asked_for_and_the_bits_do_not_depend_on_which(wanted):
    inputs = make_inputs(CASE)
    y, last, whole = gradients(inputs, DIFFERENTIABLE)
    some_y, some_last, some = gradients(inputs, wanted)
    assert torch.equal(some_y, y)
    assert torch.equal(some_last, last)
    assert {n for n, g in some.items() if g is not None} == set(wanted)
    assert all(torch.equal(some[n], whole[n]) for n in wanted)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_bits_are_the_same_and_nothing_is_kept(without):
    inputs = make_inputs(CASE)
    y, last, _ = gradients(inputs, DIFFERENTIABLE)
    inputs["A"].requires_grad_()
    with without():
        plain = run(inputs)
    assert torch.equal(plain[0], y)
    assert torch.equal(plain[1], last)
    assert not plain[0].requires_grad
    assert run(make_inputs(CASE))[0].grad_fn is None


def test_autocast_leaves_a_scan_as_it_is():
    inputs = make_inputs(CASE)
    with torch.autocast("cpu", torch.bfloat16):
        y, last, inside = gradients(inputs, DIFFERENTIABLE)
    outside = gradients(inputs, DIFFERENTIABLE)
    assert torch.equal(y, outside[0])
    assert torch.equal(last, outside[1])
    assert all(torch.equal(inside[n], outside[2][n]) for n in DIFFERENTIABLE)


def with_gradients(scan, inputs):
    """Return y, last state and all gradients."""
    wanted = sorted(n for n in DIFFERENTIABLE if torch.is_tensor(inputs.get(n)))
    leaves = {n: t.detach().requires_grad_() if n in wanted else t for n, t in inputs.items()}
    y, last = scan(leaves)
    outer = [torch.ones_like(y), torch.ones_like(last)]
    return [y.detach(), last.detach(), *torch.autograd.grad([y, last], [leaves[n] for n in wanted], outer)]


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("case", [
    CASE, ScanCase(channels=3, length=5, dtype=torch.bfloat16, gate=False),
    ScanCase(channels=3, length=5, dtype=torch.float64, initial=False, skip=False),
], ids=["groups", "bf16", "float64"])  # fmt: skip
def test_traced_and_eager_calls_give_the_same_bits(compiler, case):
    torch.compiler.reset()
    inputs = make_inputs(case)
    eager = with_gradients(run, inputs)
    traced = with_gradients(torch.compile(run, backend=compiler, fullgraph=True), inputs)
    assert all(map(torch.equal, traced, eager))


@pytest.mark.parametrize("case", [
    CASE, replace(CASE, groups=1), PACK, ScanCase(channels=3, length=5, gate=False, channels_last=False)
], ids=["groups", "rows", "pack", "channels first"])  # fmt: skip
def test_the_operators_do_what_they_tell_a_compiler(case):
    """Shapes, strides and gradients as foretold, and nothing written to: PyTorch's own check of an operator."""
    inputs = make_inputs(case)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "step_mask", "cu_seqlens")
    tensors = [inputs.get(name) for name in names]
    leaves = [t.detach().requires_grad_() if n in DIFFERENTIABLE and t is not None else t
              for n, t in zip(names, tensors, strict=True)]  # fmt: skip
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if (
        case is not PACK
    ):  # whose saved states are more than are written: what is left differs between two calls
        tests.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(operators.scan_forward, (*leaves, case.bias, True, "cpu"), test_utils=tests)
    y, last, entries = operators.scan_forward(*tensors, case.bias, True, "cpu")
    outer = entries, torch.ones_like(y), torch.ones_like(last)
    torch.library.opcheck(operators.scan_backward, (*tensors, *outer, case.bias, "cpu"))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("name", ["u", "A", "initial_state"])
def test_a_tangent_is_refused_and_not_dropped(backend, name):
    inputs = make_inputs(CASE)

    def scan(tensor, backend=backend):
        return run({**inputs, name: tensor}, backend)[0]

    tangent = torch.ones_like(inputs[name])
    with pytest.raises(
        RuntimeError, match=r"No tangents are computed here .*backend 'reference' gives others too"
    ):
        torch.func.jvp(scan, (inputs[name],), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(inputs[name], tangent)
        with pytest.raises(RuntimeError, match="No tangents are computed here"):
            scan(dual)
        assert torch.equal(scan(inputs[name]), run(inputs, backend)[0])
        with pytest.raises(RuntimeError, match="No tangents are computed here"):
            torch.func.vmap(scan)(dual[None])
    outer = partial(torch.func.jvp, lambda inner: torch.func.jvp(scan, (inner,), (tangent,))[0])
    with pytest.raises(RuntimeError, match="No tangents are computed here"):
        outer((inputs[name],), (tangent,))
    assert torch.func.jvp(partial(scan, backend="reference"), (inputs[name],), (tangent,))[1].norm() > 0


def laid_otherwise(tensor):
    """The same values with the last two dimensions the other way round in memory."""
    return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor.clone()


@pytest.mark.parametrize("pack", [torch.clone, torch.Tensor.contiguous, laid_otherwise])
def test_saved_tensors_may_come_back_in_another_layout(pack):
    """As those that are kept on the CPU, or computed anew, meanwhile."""
    inputs = make_inputs(replace(CASE, mask=True))
    expected = with_gradients(run, inputs)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        assert all(map(torch.equal, with_gradients(run, inputs), expected))


def test_a_second_derivative_by_what_was_converted_is_refused():
    inputs = make_inputs(CASE)
    narrow = ("u", "delta", "B", "C", "z", "A", "D", "delta_bias")
    half = {n: inputs[n].bfloat16() if n in narrow else inputs[n] for n in DIFFERENTIABLE}
    for name in ("A", "D", "delta_bias"):
        half[name].requires_grad_()
    y = selective_scan(**half, delta_softplus=True, backend="cpu")
    gradients = torch.autograd.grad(
        y.float().sum(), [half[n] for n in ("A", "D", "delta_bias")], create_graph=True
    )
    assert {g.dtype for g in gradients} == {torch.bfloat16}
    for name in ("A", "D", "delta_bias"):
        with pytest.raises(RuntimeError, match=AGAIN):
            torch.autograd.grad(gradients[0].float().sum(), half[name], retain_graph=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", [CASE, PACK], ids=["rows", "pack"])
def test_a_scan_is_captured_in_a_cuda_graph_without_a_wait(case):
    inputs = make_inputs(case, device="cuda")

    def both():
        return with_gradients(lambda leaves: run(leaves, "triton"), inputs)

    expected = both()  # compiled and measured before the capture
    torch.cuda.set_sync_debug_mode("error")
    try:
        both()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both()
    graph.replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, captured, expected))
