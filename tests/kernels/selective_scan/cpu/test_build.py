"""The CPU kernels' build: every level's exponential, and where the library lands."""

import ctypes

import pytest
import torch

from kernels.selective_scan.cpu import build
from kernels.selective_scan.user_cache import cache_directory


@pytest.mark.parametrize("level", build.LEVELS)
def test_exponential_is_exact_at_zero_and_close_elsewhere(level):
    levels = list(build.LEVELS)
    if levels.index(level) < levels.index(build.best_level()):
        pytest.skip(f"this CPU has no {level}")
    x = torch.cat([torch.zeros(16), torch.linspace(-100, 10, 1 << 16)])
    y = torch.empty_like(x)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, y))
    build.load_library(level).exp2_of(*pointers, ctypes.c_int64(x.numel()))
    assert (y[:16] == 1).all()
    truth = torch.exp2(x.double())
    assert ((y.double() - truth).abs() / truth).max() < 2.5e-7


def test_build_lands_whole_and_private(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "_libraries", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.load_library("plain")
    folder = cache_directory()
    assert [path.suffix for path in folder.iterdir()] == [".so"]
    assert folder.stat().st_mode & 0o777 == 0o700
