"""Write the report: one self-contained HTML file on what was done, what came out, how far to trust it."""

import logging
from pathlib import Path

from pipeline.foundation.atomic import write_text
from pipeline.report import details, sections
from pipeline.report import html as report_html
from pipeline.report.html import text
from pipeline.report.initial_state import initial_state_section
from pipeline.report.inputs import ReportInputs
from pipeline.report.made_of import made_of_section

logger = logging.getLogger(__name__)

RESEARCH_ONLY = (
    "Research only. Not a medical device: no number on this page may guide the care of a patient, and "
    "none is a laboratory result."
)


def write_report(path: Path, inputs: ReportInputs) -> None:
    """Write the report to ``path`` (temporary sibling, fsync, rename; mode 0600).

    The page needs no network and no script. It holds no patient id, record name or date of care.

    Raises
    ------
    ConfigError
        When the predictions hold no test draw, or methods were scored on different draws.
    """
    page = render(inputs)
    write_text(path, page)
    logger.info("report of experiment %s written, %.1f MB", inputs.experiment, len(page) / 1e6)


def render(inputs: ReportInputs) -> str:
    """Return the report as one HTML text."""
    parts = [
        sections.summary(inputs),
        sections.table_one(inputs),
        sections.skill(inputs),
        sections.added(inputs),
        made_of_section(inputs),
        initial_state_section(inputs),
        sections.delays(inputs),
        sections.trajectories(inputs),
        sections.data(inputs),
        sections.learning(inputs),
        details.agreement(inputs),
        details.glucose(inputs),
        details.calibration(inputs),
        details.alarms(inputs),
        details.subgroups(inputs),
        details.allowable(inputs),
        details.model_card(inputs),
        sections.all_methods(inputs),
    ]
    title = f"Laboratory values from PPG: {inputs.experiment}"
    return report_html.page(title, _header(inputs), [part for part in parts if part is not None])


def _header(inputs: ReportInputs) -> str:
    lead = report_html.paragraph(
        "Estimates of five laboratory values from the bedside pulse waveform, judged on patients that "
        "no model has seen.",
        "lead",
    )
    facts = [
        ("Experiment", inputs.experiment),
        ("Made", inputs.created),
        ("Data", inputs.source),
        ("Licence of the data", inputs.data_licence),
        ("PPG encoder", inputs.encoder),
        ("Configuration", inputs.config_hash),
        *inputs.provenance.items(),
    ]
    known = [(name, value) for name, value in facts if value]
    return f'{lead}<div class="banner" role="note">{text(RESEARCH_ONLY)}</div>{report_html.facts(known)}'
