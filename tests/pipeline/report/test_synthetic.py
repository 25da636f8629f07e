import pandas as pd

from pipeline.report.synthetic import SyntheticCohort


def test_the_banner_says_coupling_and_what_is_possible() -> None:
    oracle = pd.DataFrame({"protocol": ["anchored", "start"], "lab": "sodium", "r2": [0.91, 0.872]})
    told = SyntheticCohort(coupling=0.8, oracle=oracle).banner()
    assert "no patient" in told
    assert "coupling 0.8" in told
    assert "start: sodium 0.87; anchored: sodium 0.91" in told


def test_planted_waveforms_around_real_labs_are_told_apart() -> None:
    told = SyntheticCohort(coupling=0.0, real_labs=True).banner()
    assert told.startswith("Real labs with planted waveforms")
    assert "oracle" not in told
