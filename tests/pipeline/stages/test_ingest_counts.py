"""What the report's funnel counts: each row left out once."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from pipeline.experiments import experiment
from pipeline.foundation.schema import ADMISSION_COLUMNS
from pipeline.foundation.workspace import Workspace
from pipeline.sources.base import ClinicalTables
from pipeline.stages import ingest


def test_a_row_that_the_source_left_out_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labs = pd.DataFrame(
        {"patient_id": ["1", "1"], "code": ["sodium"] * 2, "value": ["140", "x"], "unit": [None, None],
         "sampled_at_us": [1, 2], "available_at_us": [1, 2]}
    )  # fmt: skip
    tables = ClinicalTables(
        labs=labs, admissions=pd.DataFrame(columns=list(ADMISSION_COLUMNS)), licence="none",
        exclusions=Counter({"row too long": 3}),
    )  # fmt: skip

    class Source:
        def tables(self) -> ClinicalTables:
            return tables

    monkeypatch.setattr(ingest, "clinical_source", lambda workspace: Source())
    summary = ingest.lab_events(Workspace(root=tmp_path), experiment("tiny"))
    assert summary.exclusions == {"row too long": 3, "text": 1}
    assert summary.counts["sodium_results"] == 1
