import logging

import pytest
import torch

from kernels.kalman_scan import cpu, interface, kalman_scan
from kernels.kalman_scan.cpu import BuildError

NAMES = ("kept", "gained", "h", "noise", "target", "start")


def operands(rows, steps=12, seed=0, *, replayed=False, exact=False):
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    seen = (uniform(steps, rows) > 0.2).double()
    prior = uniform(4, rows) + 0.1
    start = torch.diag_embed(prior.T).permute(1, 2, 0).contiguous()
    noise = torch.where(seen > 0, (0.0 if exact else 1.0) * (0.1 + uniform(steps, rows)), 1.0)
    made = [
        uniform(steps, 4, rows),
        uniform(steps, 2, rows),
        uniform(steps, 4, rows),
        noise,
        uniform(steps, rows) - 0.5,
        start,
    ]
    least = 1e-6 * torch.stack([seen, torch.zeros_like(seen)], dim=1) if exact else None
    follows = None
    if replayed:
        follows = torch.stack([torch.randint(max(-1, j - 4), j, (rows,), generator=g) for j in range(steps)])
    return [*made, seen, least, follows]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 8, 21])
def test_both_backends_give_the_same_bits_and_gradients(rows, replayed, exact):
    x = operands(rows, replayed=replayed, exact=exact)
    weights, found = None, []
    for backend in ("torch", "cpu"):
        given = [t.clone().requires_grad_() for t in x[:6]]
        states = kalman_scan(*given, *x[6:], backend=backend)
        weights = weights or [torch.randn_like(state) for state in states]
        sum((state * w).sum() for state, w in zip(states, weights, strict=True)).backward()
        found.append((states, [t.grad for t in given]))
    for mine, other in zip(*(states for states, _ in found), strict=True):
        assert torch.equal(mine, other)
    for name, mine, other in zip(NAMES, *(grads for _, grads in found), strict=True):
        torch.testing.assert_close(
            mine, other, rtol=1e-11, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_a_rows_bits_depend_neither_on_its_place_nor_on_threads():
    x = operands(200, steps=20)
    threads = torch.get_num_threads()
    whole = kalman_scan(*x)
    torch.set_num_threads(3)
    try:
        again = kalman_scan(*x)
    finally:
        torch.set_num_threads(threads)
    moved = kalman_scan(*(t if t is None else t[..., 5:6] for t in x))
    for mine, same, alone in zip(whole, again, moved, strict=True):
        assert torch.equal(mine, same)
        assert torch.equal(mine[..., 5:6], alone)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_second_derivative_is_refused_never_zero(backend):
    x = operands(2, steps=4)
    x[1].requires_grad_()
    mean = kalman_scan(*x, backend=backend)[0]
    (first,) = torch.autograd.grad(mean.sum(), x[1], create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again: the filter's scan"):
        torch.autograd.grad(first.sum(), x[1], allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_gradients_are_those_of_finite_differences(backend):
    x = operands(2, steps=4, replayed=True)
    symmetric = [t.requires_grad_() for t in x[:5]]
    assert torch.autograd.gradcheck(lambda *given: kalman_scan(*given, *x[5:], backend=backend), symmetric)


def test_without_a_compiler_it_is_slower_and_says_so_once(monkeypatch, caplog):
    def none():
        raise BuildError("no C++ compiler was found")

    monkeypatch.setattr(cpu, "library", none)
    monkeypatch.setattr(interface, "_told", set())
    x = operands(3)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            kalman_scan(*x)
    assert len(caplog.records) == 1
    assert "slower without its compiled kernel" in caplog.text
    with pytest.raises(BuildError, match="no C"):
        kalman_scan(*x, backend="cpu")


def test_no_step_and_no_row():
    for rows, steps in ((0, 5), (3, 0)):
        x = operands(rows, steps)
        states = kalman_scan(*x)
        assert [tuple(s.shape) for s in states] == [(steps, 4, rows), (steps, 4, 4, rows)] * 2


@pytest.mark.parametrize(
    ("place", "wrong", "said"),
    [
        (3, lambda t: t.float(), r"noise is torch.float32 \(12, 3\)"),
        (
            1,
            lambda t: t[:, :1],
            r"gained is torch.float64 \(12, 1, 3\) on cpu; it must be torch.float64 \(12, 2, 3\)",
        ),
        (8, lambda t: t + 5, "follows names a step that does not come earlier"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_read(place, wrong, said):
    x = operands(3, replayed=True)
    x[place] = wrong(x[place])
    with pytest.raises(ValueError, match=said):
        kalman_scan(*x)
