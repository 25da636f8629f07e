"""Recovery's table as text: what is judged met, and what is said beside the numbers."""

import numpy as np
import pandas as pd
import pytest

from pipeline.report.recovery_text import recovery_text, verdicts

SIDES = ("", "_lower", "_upper", "_simultaneous_lower", "_simultaneous_upper")


def row(**values):
    plain = {
        "condition": "coupling 1",
        "coupling": 1.0,
        "null": "",
        "emulated": False,
        "seeds": 1,
        "train_patients": 10,
        "protocol": "start",
        "lab": "sodium",
        "n_labs": 9,
    }
    numbers = {"added": 0.0, "recovery": 0.0} | {
        f"r2_{m}": 0.0 for m in ("locf", "shrunk_locf", "lstm", "mt_pcs_twin", "mt_pcs", "oracle")
    }
    sides = [
        (f"{kind}{side}", sign)
        for kind in ("", "simultaneous_")
        for side, sign in (("lower", -1.0), ("upper", 1.0))
    ]
    bounds = {f"{name}_{side}": sign for name in numbers for side, sign in sides}
    return plain | numbers | bounds | values


def test_the_target_counts_labs_at_coupling_1():
    labs = ("potassium", "calcium", "sodium")
    reached = pd.DataFrame([row(lab=lab, recovery=0.5) for lab in labs])
    assert [v.met for v in verdicts(reached)] == [True]
    missed = reached.assign(recovery=[0.5, 0.5, 0.49])
    assert [v.met for v in verdicts(missed)] == [False]
    assert "on 2 labs (potassium, calcium)" in verdicts(missed)[0].text
    assert verdicts(missed.assign(condition="coupling 0.5")) == []


@pytest.mark.parametrize(
    ("lower", "upper", "met"), [(-0.1, 0.1, True), (0.01, 0.1, False), (-0.2, -0.1, False), (0.0, 0.1, True)]
)
def test_null_a_is_broken_where_the_interval_leaves_out_0(lower, upper, met):
    rows = [
        row(condition="coupling 0 (null A)", null="a"),
        row(condition="coupling 0 (null A)", null="a", lab="lactate"),
    ]
    rows[1] |= {"added_simultaneous_lower": lower, "added_simultaneous_upper": upper}
    (verdict,) = verdicts(pd.DataFrame(rows))
    assert verdict.met == met
    assert ("lactate" in verdict.text) != met


def test_null_b_is_broken_by_any_method_with_skill():
    rows = [
        row(condition="null B", null="b"),
        row(condition="null B", null="b", lab="glucose", r2_lstm_simultaneous_lower=0.01),
    ]
    (verdict,) = verdicts(pd.DataFrame(rows))
    assert not verdict.met
    assert "glucose (lstm)" in verdict.text
    (verdict,) = verdicts(pd.DataFrame(rows[:1]))
    assert verdict.met


@pytest.mark.parametrize("name", ["added_simultaneous_lower", "added_simultaneous_upper"])
def test_null_a_is_not_met_where_an_interval_cannot_be_estimated(name):
    rows = [
        row(condition="coupling 0 (null A)", null="a"),
        row(condition="coupling 0 (null A)", null="a", lab="lactate"),
    ]
    rows[1][name] = float("nan")
    (verdict,) = verdicts(pd.DataFrame(rows))
    assert not verdict.met
    assert verdict.text.endswith("leaves out 0 for none; not estimable for lactate")
    assert "MISSED  start: null A" in recovery_text(pd.DataFrame(rows))


def test_null_a_is_met_where_assimilation_reads_nothing_and_not_where_a_network_equals_its_twin():
    """Nothing was compared, and nothing can have leaked; of a network it may as well be a fault."""
    nan, sides = float("nan"), ("lower", "upper")
    ours = {f"added_assim_simultaneous_{side}": nan for side in sides} | {"added_assim": nan}
    silent = {f"added_simultaneous_{side}": nan for side in sides} | ours | {"same": True, "same_assim": True}
    rows = [row(condition="coupling 0 (null A)", null="a", lab="lactate", **silent)]
    network, assimilation = verdicts(pd.DataFrame(rows))
    assert not network.met
    assert network.text.endswith("0 for none; not estimable for lactate")
    assert assimilation.met
    assert assimilation.text.endswith("0 for none; the twin's own estimates for lactate")


def test_null_b_is_not_met_where_a_bound_cannot_be_estimated():
    rows = [
        row(condition="null B", null="b"),
        row(condition="null B", null="b", lab="glucose", r2_lstm_simultaneous_lower=float("nan")),
    ]
    (verdict,) = verdicts(pd.DataFrame(rows))
    assert not verdict.met
    assert verdict.text.endswith("for none; not estimable for glucose")


def test_the_table_names_condition_size_and_outcome():
    text = recovery_text(
        pd.DataFrame([row(recovery=0.62), row(condition="null B", null="b", protocol="anchored")])
    )
    assert "coupling 1, 10 training patients, protocol start" in text
    assert "0.62" in text
    assert "0.62" not in recovery_text(pd.DataFrame([row(recovery=0.62, coupling=0.0)]))
    assert "MISSED  start" in text
    assert "met     anchored: null B" in text
    assert "not the luck of training" in text


@pytest.mark.parametrize(("added", "bounds", "told"), [
    (np.nan, np.nan, "not estimable: both give the same estimates"),
    (0.001, 0.004, "below 0.005 either way"),
    (0.001, 0.006, "0.00 [-0.01, 0.01]"),
])  # fmt: skip
def test_nothing_compared_or_next_to_nothing_found_is_said_in_words(added, bounds, told):
    shown = row(added=added, added_lower=-bounds, added_upper=bounds, recovery=added)
    (line,) = (line for line in recovery_text(pd.DataFrame([shown])).splitlines() if "sodium " in line)
    assert told in line
    assert "nan" not in line


def test_what_is_ours_stands_above_and_what_made_the_estimates_below_each_condition():
    table = pd.DataFrame([row(), row(protocol="anchored"), row(condition="other")])
    made = {"coupling 1": ["MT+PCS: one."], "other": ["MT+PCS: two."]}
    lines = recovery_text(table, above="Ours is one thing.", made_of=made).splitlines()
    assert lines[:2] == ["Ours is one thing.", ""]
    places = [next(i for i, line in enumerate(lines) if words in line) for words in (
        "coupling 1, 10 training patients, protocol start", "coupling 1, 10 training patients, protocol anchored",
        "MT+PCS: one.", "other, 10 training patients", "MT+PCS: two.", "MISSED  start",
    )]  # fmt: skip
    assert places == sorted(places)


@pytest.mark.parametrize("shift", range(12))
def test_long_sentences_are_broken_into_lines_but_no_number_is(shift):
    sentence = f"MT+PCS: {'x' * (95 + shift)} network of 1 940 389 numbers."
    told = recovery_text(pd.DataFrame([row()]), made_of={"coupling 1": [sentence]})
    assert " ".join(told.split()).count(sentence) == 1
    lines = [line for line in told.splitlines() if "numbers." in line or "xx" in line]
    assert all(len(line) <= 110 for line in lines)
    assert any("1 940 389" in line for line in lines)


def test_a_condition_shows_its_own_methods_alone():
    """Of others' columns it has no numbers, which says nothing of a method that was never trained there."""
    added = {"added_network": 0.1, "added_network_lower": 0.0, "added_network_upper": 0.2}
    ours = {
        f"{name}{side}": 0.1 for name in ("r2_mt_assim", "added_assim", "recovery_assim") for side in SIDES
    }
    loss = {name: 0.1 for name in ("loss_unseen", "loss_encoder", "loss_method", "loss_method_lstm")}
    whole = row(**ours, **added, **loss, r2_mt_assim_lines=0.2, r2_mt_assim_twin=0.0)
    part = row(
        **ours, condition="a part", r2_mt_assim_twin=0.0, loss_unseen=0.1, loss_encoder=0.1, loss_method=0.1
    )
    part = {name: value for name, value in part.items() if name != "r2_lstm"}
    first, second = recovery_text(pd.DataFrame([whole, part])).split("a part, ")
    for words in ("LSTM", "by line", "assim. - by line", "LSTM: both"):
        assert words in first
        assert words not in second
    assert "not estimable" not in second


@pytest.mark.parametrize("beside_others", [False, True])
def test_a_method_without_its_twin_has_neither_a_difference_nor_a_recovery(beside_others):
    """As ``--method mt_assim --method mt_assim_lines`` trains: what networks add, and no more."""
    names = ("r2_mt_assim", "r2_mt_assim_lines", "added_network")
    alone = {
        name: value
        for name, value in row().items()
        if "mt_pcs" not in name and not name.startswith(("added", "reco"))
    }
    alone |= {f"{name}{side}": 0.1 for name in names for side in SIDES}
    twins = {
        f"{name}{side}": 0.2
        for name in ("r2_mt_assim", "r2_mt_assim_twin", "added_assim", "recovery_assim")
        for side in SIDES
    }
    others = [row(**twins, condition="other", same_assim=False)] if beside_others else []
    told = recovery_text(pd.DataFrame([alone, *others])).split("other, ")[0]
    assert "assim. - by line" in told
    assert "+0.10 [0.10, 0.10]" in told
    assert "- twin" not in told
    assert "not estimable" not in told


def test_assimilation_has_a_table_and_verdicts_of_its_own():
    """Against its own twin; a table of an earlier run, which lacks it, is shown as it was."""
    names = ("r2_lines", "r2_mt_assim_twin", "r2_mt_assim", "added_assim", "recovery_assim")
    ours = {f"{name}{side}": 0.0 for name in names for side in SIDES} | {"r2_mt_assim": 0.77}
    rows = [
        row(**ours),
        row(**ours, condition="coupling 0 (null A)", null="a") | {"added_assim_simultaneous_lower": 0.01},
    ]
    text = recovery_text(pd.DataFrame(rows))
    assert "assim. - twin" in text
    assert "0.77" in text
    assert "MISSED  start: Assimilation: recovery of at least 0.5 at coupling 1 on 0 labs (none)" in text
    assert (
        "MISSED  start: null A: the simultaneous interval of Assimilation minus its twin leaves out 0 for sodium"
        in text
    )
    assert (
        "met     start: null A: the simultaneous interval of MT+PCS minus its twin leaves out 0 for none"
        in text
    )
    assert "assim" not in recovery_text(pd.DataFrame([row()])).lower()


@pytest.mark.parametrize(
    ("lower", "upper", "word"), [(0.01, 0.03, "met   "), (-0.01, 0.03, "MISSED"), (-0.03, -0.01, "MISSED")]
)
def test_the_verdict_on_networks_counts_labs_and_what_they_lose(lower, upper, word):
    network = {
        "added_network": (lower + upper) / 2,
        "added_network_lower": lower,
        "added_network_upper": upper,
    }
    names = ("r2_mt_assim_twin", "r2_mt_assim", "r2_mt_assim_lines", "added_assim", "recovery_assim")
    ours = {f"{name}{side}": 0.5 for name in names for side in SIDES} | network
    labs = ("potassium", "calcium", "sodium")
    text = recovery_text(
        pd.DataFrame([row(**ours, lab=lab, condition="emulated, coupling 1") for lab in labs])
    )
    assert f"{word}  start: networks add to assimilation by lines on" in text
    assert "assim. - by line" in text
