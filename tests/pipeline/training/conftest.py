import pytest

from pipeline.testing.cohort import tiny_cohort


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=8, hours=1.5, draws=4)
