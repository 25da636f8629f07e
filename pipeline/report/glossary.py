"""The words of the report that a reader may not know."""

from pipeline.report.document import Facts, Section

TERMS = (
    ("LOCF", "last observation carried forward: the latest earlier result of the lab, taken as the estimate"),
    (
        "shrunk LOCF",
        "a + b x LOCF, the two numbers of each lab fitted on training patients: history without a waveform",
    ),
    ("live LOCF", "LOCF that sees every result up to the draw, also those that the model is not shown"),
    (
        "twin",
        "the same method, trained and scored with another patient's waveform; what it lacks is what PPG added",
    ),
    ("t0", "the moment from which a method estimates: its history ends there"),
    ("piece", "the part of a recording after one t0; each starts from the patient's history up to it"),
    ("start", "protocol: one piece, from the 30th minute of the recording on; no later result is shown"),
    ("anchored", "protocol: a new piece whenever a result becomes available; every known result is used"),
    ("MT", "multi-task: one network for the five labs together"),
    ("ST", "single-task: one network for each lab"),
    ("PCS", "patient-conditioned state: the network starts at a state made of the patient's own history"),
    (
        "lines",
        "straight lines through running means of the waveform and through the lab's own history, without a network",
    ),
    ("assimilation", "a Kalman filter a lab: every result corrects what the waveform says from then on"),
    ("draw", "one blood sample that was measured; all errors are of draws"),
    ("skill", "1 - MAE / MAE of LOCF: 0 is no better than LOCF, 1 is perfect"),
    ("R2", "share of the draws' variance that is explained: 0 is no better than their mean, 1 is perfect"),
    (
        "MAE, ME, RMSE",
        "mean absolute error, mean error (estimate minus truth), root of the mean squared error",
    ),
    ("MARD", "mean absolute relative difference of glucose, in percent of the truth"),
    ("Holm", "correction of p-values for looking at five labs at once"),
)


def glossary() -> Section:
    """Return the section."""
    return Section(anchor="glossary", title="Glossary", blocks=[Facts(pairs=TERMS)])
