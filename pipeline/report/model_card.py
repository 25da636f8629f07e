"""The model card: what the models are, what they learned from, what they are for and what they are not."""

from pipeline.foundation.number_format import count, short_label
from pipeline.report.document import Bullets, Facts, Heading, Row, Section, Table
from pipeline.report.inputs import ReportInputs

_LIMITS = (
    "Results hold for patients like those above. Another hospital, monitor, sensor or laboratory may differ.",
    "Labs are drawn for a reason: scored draws are not a random sample of time.",
    "Where result times are unknown, a result is taken as available when drawn, unless a delay is configured; that "
    "favours every method that uses earlier labs.",
    "Pulse oximeter signals depend on skin tone, perfusion, temperature and vasopressors; skin tone is not recorded.",
    "Weights, embeddings and predictions may carry traces of the patients they were made from: share them only as the "
    "licence of the data allows.",
    "Intervals hold on average over patients, not for each patient.",
)
_PARTS = ("network", "lines", "reading", "history", "filters")


def model_card(inputs: ReportInputs) -> Section:
    """Intended use, architecture, parameters, data, division, seeds, commit, licences and limits."""
    pairs = [
        ("Task", "estimate potassium, total calcium, sodium, glucose and lactate from PPG and earlier labs"),
        ("Intended use", "research on retrospective recordings"),
        (
            "Not for",
            "any decision about a patient; it is not a medical device and nothing here is a lab result",
        ),
        ("Encoder", inputs.encoder or "not stated"),
        ("Data", inputs.source or "not stated"),
        ("Licence of the data", inputs.data_licence or "not stated"),
        *inputs.card,
    ]
    rows = [
        Row(cells=[short_label(one.method), *(count(one.numbers.get(part, 0)) for part in _PARTS),
                   count(sum(one.numbers.values()))])
        for one in inputs.makeups
    ]  # fmt: skip
    columns = ["parameters, first seed", *_PARTS, "all"]
    table = (
        [Table(columns=columns, rows=rows, caption="How many numbers each method holds, by part.")]
        if rows
        else []
    )
    blocks = [Facts(pairs=pairs), *table, Heading(text="Limits"), Bullets(items=_LIMITS)]
    return Section(anchor="card", title="Model card", blocks=blocks)
