import pytest
import torch

from models.baselines import WindowLSTM, WindowLSTMConfig


def test_the_lstm_ignores_what_masked_windows_hold():
    torch.manual_seed(0)
    model = WindowLSTM(WindowLSTMConfig(embed_width=8, hidden=16, dropout=0.0))
    model.set_output_means(torch.arange(5.0))
    windows, mask = torch.randn(6, 10, 8), torch.rand(6, 10) > 0.3
    hidden = windows.masked_fill(~mask[..., None], torch.nan)
    out = model(hidden, mask)
    assert out.shape == (6, 5)
    assert torch.equal(out, model(windows, mask))
    out.sum().backward()
    assert all(p.grad.isfinite().all() for n, p in model.named_parameters() if n != "log_variance")
    assert model(hidden, torch.zeros_like(mask)).isfinite().all()


def test_order_matters_and_the_read_out_starts_at_the_mean():
    torch.manual_seed(0)
    model = WindowLSTM(WindowLSTMConfig(embed_width=8, hidden=16)).eval()
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
