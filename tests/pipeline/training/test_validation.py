import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.training.distributed import Ranks
from pipeline.training.validation import clearly_positive, validation_of

ROWS = pd.DataFrame(
    {
        "protocol": ["start"] * 4 + ["anchored"],
        "lab": ["sodium", "sodium", "sodium", "glucose", "sodium"],
        "patient_id": ["a", "a", "b", "b", "b"],
        "error": [0.1, 0.3, 0.5, 0.4, 0.2],
    }
)


def test_errors_are_means_by_protocol_and_lab_and_shares_add_up_to_their_mean():
    found = validation_of(
        ROWS, ("start", "anchored"), ("sodium", "glucose"), ["a", "b", "c"], Ranks(), torch.device("cpu")
    )
    assert found.errors == pytest.approx({"start/sodium": 0.3, "start/glucose": 0.4, "anchored/sodium": 0.2})
    assert found.error == pytest.approx(0.3)
    assert found.shares == pytest.approx([0.4 / 3 / 3, (0.5 / 3 + 0.4 + 0.2) / 3, 0.0])
    assert found.shares.sum() == pytest.approx(found.error)


def test_without_examples_there_is_no_error():
    found = validation_of(ROWS.head(0), ("start",), ("sodium",), ["a"], Ranks(), torch.device("cpu"))
    assert found.errors == {}
    assert found.error is None
    assert found.shares.tolist() == [0.0]


def test_a_gain_must_exceed_its_standard_error():
    assert clearly_positive(np.array([1.0, 2.0, 3.0]))
    assert not clearly_positive(np.array([-1.0, 2.0, -0.5]))  # mean 0.17, standard error 0.93
    assert not clearly_positive(np.array([-1.0, -1.0, -1.0]))
    assert not clearly_positive(np.array([5.0]))
    assert not clearly_positive(np.zeros(5))
