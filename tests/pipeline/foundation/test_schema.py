"""Every list by lab elsewhere names the schema's labs: who adds one is told by name what else it needs."""

import json
from collections.abc import Iterable

import pytest

from models.regressor.config import FIVE_LABS
from pipeline.foundation.schema import LAB_NAMES
from pipeline.foundation.units import UNIT_FACTORS
from pipeline.report.style import LAB_COLOURS, LAB_MARKERS
from pipeline.sources.synthetic.parameters import PARAMETERS_PATH
from pipeline.testing.cohort import CENTRES, SPREADS
from pipeline.testing.estimates import USUAL

LISTS = {
    "UNIT_FACTORS of pipeline/foundation/units.py": UNIT_FACTORS,
    "FIVE_LABS of models/regressor/config.py": FIVE_LABS,
    "LAB_COLOURS of pipeline/report/style.py": LAB_COLOURS,
    "LAB_MARKERS of pipeline/report/style.py": LAB_MARKERS,
    "labs of pipeline/sources/synthetic/parameters.json": json.loads(PARAMETERS_PATH.read_text())["labs"],
    "CENTRES of pipeline/testing/cohort.py": CENTRES,
    "SPREADS of pipeline/testing/cohort.py": SPREADS,
    "USUAL of pipeline/testing/estimates.py": USUAL,
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_by_lab_names_every_lab_and_no_other(name: str) -> None:
    labs: Iterable[str] = LISTS[name]
    assert set(labs) == set(LAB_NAMES)
