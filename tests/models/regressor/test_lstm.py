import pytest
import torch

from models.regressor.lstm import WindowLSTM, WindowLSTMConfig


def test_the_lstm_ignores_what_masked_windows_hold():
    torch.manual_seed(0)
    model = WindowLSTM(WindowLSTMConfig(embed_width=8, hidden=16, dropout=0.0))
    torch.nn.init.normal_(model.heads.weight)
    windows, mask = torch.randn(6, 10, 8), torch.rand(6, 10) > 0.3
    hidden = windows.masked_fill(~mask[..., None], torch.nan)
    out = model(hidden, mask)
    assert out.shape == (6, 5)
    assert torch.equal(out, model(windows, mask))
    out.sum().backward()
    assert all(p.grad.isfinite().all() for n, p in model.named_parameters() if n != "log_variance")
    assert model(hidden, torch.zeros_like(mask)).isfinite().all()


def test_fitted_scales_are_of_the_usable_windows():
    torch.manual_seed(0)
    model = WindowLSTM(WindowLSTMConfig(embed_width=8, hidden=16))
    windows, mask = torch.randn(6, 10, 8) * 3 + 50, torch.rand(6, 10) > 0.3
    model.fit_input_scales(windows.masked_fill(~mask[..., None], torch.nan), mask)
    assert torch.allclose(model.input_scale.mean, windows[mask].mean(0), atol=1e-4)
    assert torch.allclose(model.input_scale.scale, windows[mask].std(0, correction=0), atol=1e-4)


def test_order_matters_and_the_read_out_starts_at_the_mean():
    torch.manual_seed(0)
    model = WindowLSTM(WindowLSTMConfig(embed_width=8, hidden=16)).eval()
    torch.nn.init.normal_(model.heads.weight)
    windows, mask = torch.randn(3, 10, 8), torch.ones(3, 10, dtype=torch.bool)
    assert not torch.allclose(model(windows, mask), model(windows.flip(1), mask))
    before = model(windows, mask)
    old = model.heads.bias.detach().clone()
    model.set_output_means(torch.arange(5.0))
    assert torch.allclose(model(windows, mask) - before, torch.arange(5.0) - old, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("hidden", 0), ("n_windows", 0), ("dropout", -0.1), ("task_labs", ())]
)
def test_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"{field} is"):
        WindowLSTMConfig(**{"embed_width": 8, field: value})


def test_the_first_estimate_is_the_output_mean():
    model = WindowLSTM(WindowLSTMConfig(embed_width=8, hidden=16)).eval()
    model.set_output_means(torch.arange(5.0))
    assert torch.equal(
        model(torch.randn(2, 10, 8), torch.ones(2, 10, dtype=torch.bool)), torch.arange(5.0).expand(2, 5)
    )
