import pandas as pd

from pipeline.report.best import best_of

ROWS = pd.DataFrame(
    {
        "lab": "potassium",
        "method": ["locf", "live_locf", "mt", "mt_pcs"],
        "r2": [0.1, 0.9, 0.301, 0.299],
        "mae": [0.3, 0.1, 0.25, 0.26],
        "me": [-0.01, 0.0, 0.02, 0.05],
    }
)


def test_the_best_is_by_the_printed_figure_and_never_one_that_sees_more() -> None:
    assert best_of("r2", ROWS) == {"mt", "mt_pcs"}  # both print 0.30
    assert best_of("mae", ROWS) == {"mt"}
    assert best_of("me", ROWS) == {"locf"}


def test_nothing_leads_alone_or_unknown() -> None:
    assert best_of("r2", ROWS.iloc[:1]) == set()
    assert best_of("r2", ROWS.assign(r2=float("nan"))) == set()
