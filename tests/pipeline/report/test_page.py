"""The report stands alone, tells no identity, and renders whatever little there is."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.delay_methods import ADDED
from pipeline.evaluation.judge import EvaluationConfig, compare, evaluate
from pipeline.foundation.schema import LAB_NAMES, METHOD_LABELS
from pipeline.prediction.intervals import fit_intervals
from pipeline.report.calibration_section import calibration
from pipeline.report.course_section import trajectories
from pipeline.report.figures import forest_svg, loss_curve_svg, readable_range, trajectory_svg
from pipeline.report.flow import Flow, FlowArm, FlowStep
from pipeline.report.inputs import ReportInputs
from pipeline.report.page import RESEARCH_ONLY, render, write_report
from pipeline.report.rendering import render_page
from pipeline.report.sections import delays, summary
from pipeline.report.synthetic import SyntheticCohort
from pipeline.training.makeup import Makeup

QUICK = EvaluationConfig(bootstrap=50)
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Outline(HTMLParser):
    """Collects what the tests ask for and checks that tags nest."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], [], set()
        self.urls, self.faults = [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        self.urls += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]
        if tag == "section":
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given["href"].removeprefix("#"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def outline(page):
    parser = Outline()
    parser.feed(page)
    return parser


def _trajectories():
    hours = np.arange(0, 12, 0.5)
    parts = [
        pd.DataFrame({"sequence": "Test patient 1", "protocol": protocol, "lab": lab, "hours_since_t0": hours,
                      "estimate": 4 + np.sin(hours), "lower": 3.0, "upper": 6.0})
        for lab in LAB_NAMES for protocol in ("start", "anchored")
    ]  # fmt: skip
    draws = pd.DataFrame(
        {"sequence": "Test patient 1", "lab": "sodium", "hours_since_t0": [-2.0, 3.0], "value": [4.0, 4.5]}
    )
    return pd.concat(parts), draws


def _epochs():
    return [
        {
            "part": "all",
            "epoch": epoch,
            "loss": 1 / epoch,
            "validation": {"sodium": 0.1, "lactate": 0.2 / epoch},
        }
        for epoch in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def inputs(make_predictions):
    methods = ("locf", "shrunk_locf", "live_locf", "mt_pcs", "mt_pcs_twin")
    table = make_predictions(n_patients=60, splits=("test", "test", "calibration"), methods=methods)
    table = fit_intervals(table).apply(table)
    trajectories, draws = _trajectories()
    ids = sorted(table["patient"].unique())
    patients = pd.DataFrame({"patient_id": ids, "age_years": np.linspace(20, 90, len(ids)), "sex": "F"})
    return ReportInputs(
        experiment="demo <1>",
        predictions=table,
        evaluation=evaluate(table, QUICK),
        comparisons=compare(table, "mt_pcs", "mt_pcs_twin", EvaluationConfig(bootstrap=250)),
        config_hash="abc123",
        source="synthetic cohort",
        data_licence="free to share",
        caveat="These figures flatter: dense scoring.",
        departures=["History stands at every step: ours."],
        synthetic=SyntheticCohort(coupling=0.8),
        makeups=[
            Makeup(
                method="mt_pcs",
                numbers={"network": 1234567, "lines": 409},
                labs=LAB_NAMES,
                without_waveform=("lactate",),
            )
        ],
        flow=Flow(
            steps=[FlowStep(title="Windows", counts={"30 s windows": 34567}, dropped={"flat": 3})],
            arms=[FlowArm(title="test", purpose="every number is of these", counts={"patients": 40})],
        ),
        card=[("Code", "0123456789ab")],
        exclusions={"windows": {"flat": 3}, "labs": {}},
        training_curves={"mt_pcs": _epochs()},
        trajectories=trajectories,
        draws=draws,
        patients=patients,
    )


@pytest.fixture(scope="module")
def page(inputs):
    return render(inputs)


def test_tags_nest_and_the_contents_lead_to_every_section(page):
    found = outline(page)
    assert found.faults == []
    assert found.open == []
    assert found.links[: len(found.ids)] == found.ids
    assert set(found.links) <= set(found.ids)  # those of the checklist too
    assert len(found.ids) == len(set(found.ids)) == 18


def test_nothing_is_fetched_and_nothing_runs(page):
    found = outline(page)
    assert "script" not in found.tags
    assert all(url.startswith(("#", "data:")) for url in found.urls)
    assert not re.search(r"@import|url\((?!#)", page)


def test_no_identity_and_no_date_of_care(page, inputs):
    assert not [patient for patient in inputs.predictions["patient"].unique() if f">{patient}<" in page]
    assert not [name for name in inputs.predictions["sequence"].unique() if name in page]
    years = inputs.predictions["sampled_at"].dt.year.unique()
    assert not [year for year in years if re.search(rf"\b{year}-\d\d-\d\d", page)]


def test_the_banner_the_caveat_and_the_facts_are_there(page):
    assert RESEARCH_ONLY in page
    assert "demo &lt;1&gt;" in page
    assert "<1>" not in page
    page = page.replace("\N{NO-BREAK SPACE}", " ")  # no line break inside a number
    assert page.count("These figures flatter") >= 4
    for words in (
        "abc123",
        "free to share",
        "34 567",
        "mmol/L",
        "mg/dL",
        "arXiv 2509.16345",
        "not the luck of training",
        "1 234 567 numbers",
        "lactate uses no waveform",
        "coupling 0.8",
        "0123456789ab",
    ):
        assert words in page


def test_every_method_is_named(page, inputs):
    for method in inputs.predictions["method"].unique():
        assert METHOD_LABELS[method].split(" (sees")[0] in page


def test_no_raw_nan_or_hyphen_for_minus(page):
    words = re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert page.count("History stands at every step") == 1  # once is enough
    assert not re.search(r"\bnan\b", words, flags=re.IGNORECASE)
    assert not re.search(r">-\d", words)


def test_drawings_are_well_formed_and_named(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.attrib["aria-label"]
        assert root.attrib["viewBox"]


def test_verdict_follows_the_numbers(inputs):
    def told(**changes):
        return render_page("section.html.jinja", section=summary(replace(inputs, **changes)))

    assert "What PPG added to MT+PCS. start: R2 higher for all 5 labs" in told()
    shown = inputs.comparisons.copy()
    shown.loc[shown["lab"] != "sodium", "lower"] = -1.0
    assert "start: R2 higher for 1 of 5 labs (sodium)" in told(comparisons=shown)
    shown.loc[shown["lab"] == "sodium", "p_holm"] = 0.06
    assert "R2 higher for none of 5 labs" in told(comparisons=shown)


def test_small_cohorts_hide_cells_and_say_why_there_is_no_interval(make_predictions):
    table = make_predictions(n_patients=9, splits=("test", "test", "calibration"), methods=("locf", "mt_pcs"))
    table = fit_intervals(table).apply(table)
    inputs = ReportInputs(experiment="tiny", predictions=table, evaluation=evaluate(table, QUICK))
    page = render(inputs)
    body = render_page("section.html.jinja", section=calibration(inputs))
    assert "<td>100</td></tr>" in body  # without interval, %
    assert "Without interval: potassium (too few calibration patients: 3 of at least 9)" in body
    assert "unbounded" not in page
    assert body.count("Hidden, since under 10 patients: potassium (") == 1  # all labs in one line
    assert "hours since the last lab (all groups); change since the last lab (all groups)" in page
    assert page.count("Thresholds not judged") == 1
    assert 'id="alarms"' not in page
    assert outline(page).faults == []


def test_wide_intervals_do_not_hide_the_others_but_end_in_an_arrow(inputs):
    table = inputs.evaluation.copy()
    wide = (table["method"] == "mt_pcs") & (table["lab"] == "lactate") & (table["aggregation"] == "pooled")
    table.loc[wide, "skill_vs_locf_lower"] = -40.0
    assert readable_range(table, "skill_vs_locf_lower", "skill_vs_locf_upper")[0] > -1.2
    one = table[table["method"].isin(["locf", "mt_pcs"])]
    assert forest_svg(one) != forest_svg(
        inputs.evaluation[inputs.evaluation["method"].isin(["locf", "mt_pcs"])]
    )
    assert "\N{MINUS SIGN}40" not in forest_svg(one)
    assert readable_range(table.iloc[:0], "skill_vs_locf_lower", "skill_vs_locf_upper")[0] < 0


def test_results_that_come_later_have_their_own_section(inputs):
    rows = [
        {"delay_minutes": delay, "protocol": "start", "lab": "sodium", "method": method, "n_labs": 30 - delay // 6,
         "n_patients": 12, "r2": 0.5 - delay / 200, "r2_lower": 0.1, "r2_upper": 0.9, "mae": 2.0 + delay / 100,
         "mae_lower": 1.0, "mae_upper": 3.0}
        for delay in (0, 30, 60) for method in ("locf", "mt_pcs", ADDED)
    ]  # fmt: skip
    body = render_page("section.html.jinja", section=delays(replace(inputs, delays=pd.DataFrame(rows))))
    assert "sodium, mmol/L: 30 / 25 / 20 draws" in body
    assert "result after 60 min" in body
    assert body.count("what PPG added") == 1
    assert "+0.20" in body
    assert outline(body).faults == []


def test_one_patient_one_method_one_lab_still_renders(make_predictions):
    table = make_predictions(n_patients=1, methods=("mt_pcs",), labs=("sodium",), protocols=("anchored",))
    page = render(ReportInputs(experiment="least", predictions=table, evaluation=evaluate(table, QUICK)))
    found = outline(page)
    assert found.faults == []
    assert "glucose" not in found.ids
    assert "added" not in found.ids


def test_the_file_is_private_complete_and_the_same_again(tmp_path, inputs, page):
    path = tmp_path / "report.html"
    write_report(path, inputs)
    assert path.read_text() == page
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_summary_of_one_page_stands_alone(tmp_path, inputs):
    path = tmp_path / "summary.html"
    write_report(tmp_path / "report.html", inputs, path)
    text = path.read_text()
    found = outline(text)
    assert found.faults == found.open == []
    assert all(url.startswith("#") for url in found.urls)  # within its own drawings
    assert "script" not in found.tags
    for words in (RESEARCH_ONLY, "Synthetic cohort", "1 234 567 numbers", "What PPG added to MT+PCS"):
        assert words in text.replace("\N{NO-BREAK SPACE}", " ")
    assert path.stat().st_mode & 0o777 == 0o600


def test_trajectory_without_bounded_intervals_or_draws():
    trajectories, draws = _trajectories()
    drawn = trajectory_svg(trajectories.assign(lower=-np.inf, upper=np.inf), draws.iloc[:0])
    assert "estimate, protocol start" in drawn
    assert "interval" not in drawn


def test_a_trajectory_without_interval_says_why(inputs):
    assert "Estimates without a band" not in render_page("section.html.jinja", section=trajectories(inputs))
    table = inputs.trajectories.assign(interval_state="ok")
    few = "too few calibration patients: 3 of at least 9"
    table.loc[table["lab"].isin(["sodium", "lactate"]), "interval_state"] = few
    table.loc[table["lab"] == "glucose", "interval_state"] = "no estimate"
    body = render_page("section.html.jinja", section=trajectories(replace(inputs, trajectories=table)))
    assert f"Estimates without a band: sodium, lactate ({few}). Hours count" in body


def test_loss_curves_of_single_task_models_name_their_labs():
    rows = [
        row | {"part": lab, "validation": {lab: row["validation"][lab]}}
        for lab in ("sodium", "lactate")
        for row in _epochs()
    ]
    drawn = loss_curve_svg(rows)
    assert (
        drawn.count(">sodium<") == drawn.count(">lactate<") == 1
    )  # one legend for both panels, in the labs' order
    assert drawn.index(">sodium<") < drawn.index(">lactate<")
    assert "Date" not in drawn


def test_the_epoch_before_training_is_drawn_and_the_kept_one_marked():
    start = {"part": "all", "epoch": 0, "loss": None, "validation": {"sodium": 0.3}, "kept": True}
    rows = [start, *(row | {"kept": False} for row in _epochs())]
    assert loss_curve_svg(rows) != loss_curve_svg(rows[1:])
    assert loss_curve_svg(rows) != loss_curve_svg([start | {"kept": False}, *rows[1:]])


def test_loss_curves_show_the_validation_errors_that_training_writes():
    """Training names them "protocol/lab"; an empty panel would say that nothing was validated."""
    rows = [
        row | {"validation": {f"anchored/{lab}": error for lab, error in row["validation"].items()}}
        for row in _epochs()
    ]
    drawn = loss_curve_svg(rows)
    assert all(f">{lab}<" in drawn for lab in _epochs()[0]["validation"])
