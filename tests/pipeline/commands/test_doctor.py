"""`doctor` says what is there, and for what is missing what to do; only what nothing runs without fails it."""

import pytest

from kernels.selective_scan.cpu.build import BuildError
from pipeline.__main__ import main
from pipeline.commands import doctor
from pipeline.commands.doctor import Finding, doctor_text


def test_on_this_machine_it_looks_at_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for about in ("processor", "memory", "GPU", "compiler", "kernels", "encoder", "packages", "extras"):
        assert f"\n{about}" in told
    assert "numbers a window" in told
    assert "torch 2" in told


def refuse() -> None:
    raise BuildError("no C++ compiler was found; install one")


def test_without_a_compiler_it_says_what_to_install_and_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("kernels.selective_scan.cpu.build.load_library", refuse)
    monkeypatch.setattr("kernels.kalman_scan.cpu.library", refuse)
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "selective scan: slow, in PyTorch (no C++ compiler was found" in told
    assert "apt install g++" in told.split("To do (2):")[1]


def test_a_compiler_that_is_named_and_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert doctor._compiler()[0].told == "CXX = /nowhere/c++, which is not there"


def test_a_package_that_is_missing_or_too_old_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["torch>=99", "numpy>=2", "no-such-package", 'absent-too; extra == "ray"']
    monkeypatch.setattr(doctor, "requires", lambda name: asked)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "no-such-package is missing" in told
    assert "is not >=99" in told
    assert "absent-too" not in told
    assert told.count("pip install . -c requirements.lock") == 1


def test_weights_that_are_missing_fail_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.experiments.BEST_ENCODER", "ppg_gpt_9m")
    found = doctor._encoders()[0]
    assert found.needed
    assert found.remedy is not None
    assert "ppg_gpt_9m" in found.told


def test_a_remedy_is_told_once_and_a_subject_too() -> None:
    rows = [Finding(about="kernels", told=told, remedy="Mend it.") for told in ("one", "two")]
    text = doctor_text(rows)
    assert text.count("Mend it.") == text.count("kernels") == 1
    assert "Nothing is missing." in doctor_text([Finding(about="memory", told="8 GB free")])
