"""Several benchmarks in one run: each is measured once, in the order asked for, and kept under its own name."""

import sys
import types

import pytest

from benchmarks import __main__ as command


@pytest.mark.parametrize(
    ("asked", "wanted"), [(["b", "a"], ["b1", "a1", "a2"]), (["a", "a", "--only", "2"], ["a2"])]
)
def test_names_are_run_in_order_and_once(
    asked: list[str], wanted: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, cases in {"a": ["a1", "a2"], "b": ["b1"]}.items():
        module = types.SimpleNamespace(CASES=[types.SimpleNamespace(name=case) for case in cases])
        monkeypatch.setitem(sys.modules, f"fake_{name}", module)  # type: ignore[arg-type]
    kept: list[tuple[str, str]] = []
    monkeypatch.setattr(command, "REGISTRY", {"a": "fake_a", "b": "fake_b"})
    monkeypatch.setattr(command, "run_case", lambda case, *_: case.name)
    monkeypatch.setattr(command, "table", str)
    monkeypatch.setattr(command, "save", lambda name, measured: kept.append((name, measured)))
    monkeypatch.setattr(sys, "argv", ["benchmarks", *asked])
    command.main()
    assert kept == [(case[0], case) for case in wanted]
    assert capsys.readouterr().out.split() == wanted


@pytest.mark.parametrize("no_save", [False, True])
def test_a_run_goes_on_with_the_cases_that_have_no_rows_and_prints_all(
    no_save: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.SimpleNamespace(CASES=[types.SimpleNamespace(name=case) for case in ("a1", "a2", "a3")])
    monkeypatch.setitem(sys.modules, "fake_a", module)  # type: ignore[arg-type]
    kept: list[tuple[str, str]] = []
    monkeypatch.setattr(command, "REGISTRY", {"a": "fake_a"})
    monkeypatch.setattr(command, "commit_name", lambda: "abc1234")
    monkeypatch.setattr(command, "kept", lambda name: {"a1": f"{name}:a1, kept", "a3": f"{name}:a3, kept"})
    monkeypatch.setattr(command, "run_case", lambda case, *_: case.name)
    monkeypatch.setattr(command, "table", str)
    monkeypatch.setattr(command, "save", lambda name, measured: kept.append((name, measured)))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "a", "--continue", *["--no-save"] * no_save])
    command.main()
    assert capsys.readouterr().out.splitlines() == ["a:a1, kept", "a2", "a:a3, kept"]
    assert kept == ([] if no_save else [("a", "a2")])
    monkeypatch.setattr(sys, "argv", ["benchmarks", "a"])
    command.main()
    assert capsys.readouterr().out.split() == ["a1", "a2", "a3"]


@pytest.mark.parametrize("commit", ["unknown", "abc1234+"])
def test_a_run_does_not_go_on_where_nobody_knows_what_was_measured(
    commit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "commit_name", lambda: commit)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "encoder", "--continue"])
    with pytest.raises(SystemExit):
        command.main()
    assert f"this one is '{commit}'" in capsys.readouterr().err


def test_an_unknown_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "encoder", "nothing"])
    with pytest.raises(SystemExit):
        command.main()
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
