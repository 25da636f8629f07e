import gc
from pathlib import Path

import pytest

from pipeline.foundation import memory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a machine with 100 MiB available and no container."""
    (tmp_path / "meminfo").write_text("MemTotal: 999999 kB\nMemAvailable: 102400 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    return tmp_path


def test_what_the_machine_has_available_counts(machine: Path) -> None:
    assert memory.available_memory_bytes() == 100 * 2**20


@pytest.mark.parametrize(("folder", "limit", "used", "inactive"), [
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
])  # fmt: skip
def test_a_containers_limit_counts_where_it_is_lower(
    machine: Path, folder: str, limit: str, used: str, inactive: str
) -> None:
    place = machine / folder
    place.mkdir(exist_ok=True)
    (place / limit).write_text("5000\n")
    (place / used).write_text("4000\n")
    (place / "memory.stat").write_text(f"anon 3000\n{inactive} 500\n")
    assert memory.available_memory_bytes() == 1500
    (place / used).write_text("9000\n")
    assert memory.available_memory_bytes() == 0
    (place / limit).write_text("max\n")
    assert memory.available_memory_bytes() == 100 * 2**20


def test_a_machine_that_says_nothing_gets_a_modest_guess(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "meminfo").unlink()
    assert memory.available_memory_bytes() > 0
    monkeypatch.setattr(memory.os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert memory.available_memory_bytes() == 4 * 2**30


def test_the_collector_rests_inside_and_is_what_it_was_after_an_error() -> None:
    def fail() -> None:
        with memory.collector_paused():
            assert not gc.isenabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gc.isenabled()
    gc.disable()
    try:
        with memory.collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
