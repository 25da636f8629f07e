import torch

from models.regressor.window_reader import N_WINDOWS, WindowReader, no_windows, trailing, trailing_step

LENGTHS = [3, 0, 25, 1]


def pack(seed=0, width=2):
    g, total = torch.Generator().manual_seed(seed), sum(LENGTHS)
    mask = torch.rand(total, generator=g) > 0.3
    return torch.randn(total, width, generator=g), mask, torch.tensor([0, *LENGTHS]).cumsum(0)


def test_the_windows_of_a_step_are_those_of_its_piece_up_to_it():
    x, mask, bounds = pack()
    windows, usable, _ = trailing(x, mask, bounds, no_windows(len(LENGTHS), x, 2))
    assert windows.shape == (sum(LENGTHS), N_WINDOWS, 2)
    for first, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for t in range(first, stop):
            for back in range(N_WINDOWS):
                source = t - back
                known = source >= first and bool(mask[source])
                assert bool(usable[t, -1 - back]) == known
                assert torch.equal(windows[t, -1 - back], x[source] if known else torch.zeros(2))


def test_pieces_go_on_where_they_were_left_in_one_call_or_step_by_step():
    x, mask, _ = pack()
    x, mask = x[:24].unflatten(0, (2, 12)), mask[:24].unflatten(0, (2, 12))
    start, bounds = no_windows(2, x, 2), torch.tensor([0, 12, 24])
    whole, usable, last = trailing(x.flatten(0, 1), mask.flatten(), bounds, start)
    _, _, middle = trailing(x[:, :5].flatten(0, 1), mask[:, :5].flatten(), torch.tensor([0, 5, 10]), start)
    rest = trailing(x[:, 5:].flatten(0, 1), mask[:, 5:].flatten(), torch.tensor([0, 7, 14]), middle)
    assert torch.equal(rest[0].unflatten(0, (2, 7)), whole.unflatten(0, (2, 12))[:, 5:])
    assert torch.equal(rest[1].unflatten(0, (2, 7)), usable.unflatten(0, (2, 12))[:, 5:])
    assert torch.equal(rest[2], last)
    state = start
    for t in range(12):
        windows, here, state = trailing_step(x[:, t], mask[:, t], state)
        assert torch.equal(windows, whole.unflatten(0, (2, 12))[:, t])
        assert torch.equal(here, usable.unflatten(0, (2, 12))[:, t])
    assert torch.equal(state, last)


def test_what_a_masked_step_holds_reaches_nothing():
    x, mask, bounds = pack()
    hidden = x.masked_fill(~mask[:, None], torch.nan)
    start = no_windows(len(LENGTHS), x, 2)
    for shown, plain in zip(
        trailing(hidden, mask, bounds, start), trailing(x, mask, bounds, start), strict=True
    ):
        assert torch.equal(shown, plain)


def test_a_reader_starts_at_its_bias_and_knows_a_missing_window_from_a_zero_one():
    torch.manual_seed(0)
    reader = WindowReader(2, 3, 8)
    windows, usable = torch.zeros(4, N_WINDOWS, 2), torch.ones(4, N_WINDOWS, dtype=torch.bool)
    assert torch.equal(reader(windows, usable), reader.heads.bias.expand(4, 3))
    torch.nn.init.normal_(reader.heads.weight)
    assert not torch.allclose(reader(windows, usable), reader(windows, ~usable))
