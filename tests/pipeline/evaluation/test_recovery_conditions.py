"""The conditions are those that docs/recovery.md names."""

from dataclasses import replace

from pipeline.evaluation.recovery import MODEL, OUR_LINES, OUR_TWIN, OURS, TWIN
from pipeline.evaluation.recovery_conditions import CONDITIONS, LONG_CONDITIONS, Condition


def test_short():
    full = [c for c in CONDITIONS if c.train_share == 1 and c.null != "b"]
    assert sorted(c.coupling for c in full) == [0.0, 0.5, 1.0]
    assert len({c.train_share for c in CONDITIONS if c.coupling == 1}) == 3
    assert {c.null for c in CONDITIONS} == {None, "a", "b"}
    assert all(c.seeds > 1 for c in CONDITIONS if c.null)
    assert not any(c.emulated for c in CONDITIONS)


def test_long():
    rendered = [c for c in LONG_CONDITIONS if not c.emulated]
    assert [(c.null, c.coupling, c.seeds) for c in rendered] == [(None, 1.0, 5), ("a", 0.0, 5)]
    emulated = [c for c in LONG_CONDITIONS if c.emulated]
    assert {(c.coupling, c.most_judged) for c in emulated} == {(1.0, 75)}
    assert [c.seeds for c in emulated] == [2, 1, 1]
    asked_for = {"lines", MODEL, TWIN, OURS, OUR_TWIN}
    assert [set(c.methods) for c in emulated] == [asked_for | {OUR_LINES}, asked_for, asked_for]
    assert sorted(round(600 * c.train_share) for c in emulated) == [96, 200, 600]


def test_a_fit_without_chance_is_made_once():
    condition = Condition(name="x", coupling=1.0, seeds=5)
    runs = {
        method: len(condition.runs(method))
        for method in ("mt_pcs", "mt_pcs_twin", "lines", "lstm", "mt_assim", "mt_assim_lines")
    }
    assert runs == {"mt_pcs": 5, "mt_pcs_twin": 5, "lines": 5, "lstm": 1, "mt_assim": 5, "mt_assim_lines": 1}
    assert len(condition.runs("mt_assim_twin")) == 5  # whose waveform it gets is chance


def test_what_is_trained_does_not_depend_on_what_else_is() -> None:
    condition = LONG_CONDITIONS[0]
    told = condition.described()
    assert told == replace(condition, seeds=1, methods=("lines",)).described()
    assert "most_judged" not in told, "runs from before it are recognised"
    assert replace(condition, most_judged=5).described()["most_judged"] == 5
