"""Write the report: one self-contained HTML file on what was done, what came out, how far to trust it."""

import logging
from pathlib import Path

from pipeline.foundation.atomic import write_text
from pipeline.report import calibration_section, cohort_section, course_section, details, sections
from pipeline.report.checklist import checklist
from pipeline.report.glossary import glossary
from pipeline.report.initial_state import initial_state_section
from pipeline.report.inputs import ReportInputs
from pipeline.report.made_of import made_of_section
from pipeline.report.model_card import model_card
from pipeline.report.one_page import write_one_page
from pipeline.report.rendering import render_page

logger = logging.getLogger(__name__)

RESEARCH_ONLY = (
    "Research only. Not a medical device: no number on this page may guide the care of a patient, and "
    "none is a laboratory result."
)
LEAD = "Estimates of five laboratory values from the bedside pulse waveform, judged on patients that no model has seen."


def write_report(path: Path, inputs: ReportInputs, one_page: Path | None = None) -> None:
    """Write the report to ``path``, and its summary of one page to ``one_page`` (each whole or not at all; mode 0600).

    The pages need no network and no script. They hold no patient id, record name or date of care.

    Raises
    ------
    ConfigError
        When the predictions hold no test draw, or methods were scored on different draws.
    """
    page = render(inputs)
    write_text(path, page)
    if one_page is not None:
        write_one_page(one_page, inputs, RESEARCH_ONLY)
    logger.info("report of experiment %s written, %.1f MB", inputs.experiment, len(page) / 1e6)


def render(inputs: ReportInputs) -> str:
    """Return the report as one HTML text."""
    parts = [
        sections.summary(inputs),
        sections.table_one(inputs),
        cohort_section.data(inputs),
        sections.skill(inputs),
        sections.added(inputs),
        made_of_section(inputs),
        initial_state_section(inputs),
        sections.delays(inputs),
        course_section.trajectories(inputs),
        course_section.learning(inputs),
        details.agreement(inputs),
        details.glucose(inputs),
        calibration_section.calibration(inputs),
        details.alarms(inputs),
        details.subgroups(inputs),
        details.allowable(inputs),
        sections.all_methods(inputs),
        sections.paper(inputs),
        model_card(inputs),
        glossary(),
    ]
    shown = [part for part in parts if part is not None and part.blocks]
    banners = [RESEARCH_ONLY, *([inputs.synthetic.banner()] if inputs.synthetic else [])]
    return render_page(
        "report.html.jinja",
        title=f"Laboratory values from PPG: {inputs.experiment}",
        lead=LEAD,
        banners=banners,
        facts=_facts(inputs),
        sections=[*shown, checklist([part.anchor for part in shown])],
    )


def _facts(inputs: ReportInputs) -> list[tuple[str, str]]:
    facts = [
        ("Experiment", inputs.experiment),
        ("Made", inputs.created),
        ("Data", inputs.source),
        ("Licence of the data", inputs.data_licence),
        ("PPG encoder", inputs.encoder),
        ("Configuration", inputs.config_hash),
        *inputs.provenance.items(),
    ]
    return [(name, value) for name, value in facts if value]
