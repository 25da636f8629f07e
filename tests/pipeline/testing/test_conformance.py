"""The search for implementations finds them wherever they stand, and every protocol has a test that asks it."""

import re
from pathlib import Path

import pytest

from pipeline.cohort.base import PatientWindows
from pipeline.embedding.flow import EmbeddingFlow
from pipeline.labs.carry_forward import ShrunkLocf
from pipeline.sources.base import WaveformSource
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.testing.conformance import EXCUSED, forgotten, implementations, protocols

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("name", protocols())
def test_every_protocol_has_a_conformance_test_that_searches(name: str) -> None:
    asked = re.compile(rf"forgotten\(\s*{name.rsplit('.', 1)[1]},")
    assert any(asked.search(path.read_text()) for path in TESTS.rglob("test_*.py") if path != Path(__file__))


def test_what_is_run_nowhere_is_named_and_so_is_what_fills_nothing() -> None:
    found = forgotten(WaveformSource, [Mimic3Waveforms, ShrunkLocf])
    assert "pipeline.pretraining.pulse_families.PulseFamilies" in found
    assert "pipeline.sources.bidmc.Bidmc" in found
    assert "-pipeline.labs.carry_forward.ShrunkLocf" in found
    assert "pipeline.sources.mimic3.Mimic3Waveforms" not in found


def test_a_protocol_without_methods_is_filled_by_what_has_its_attributes() -> None:
    found = implementations(PatientWindows)
    assert "pipeline.store.zarr_version.PatientEmbeddings" in found
    assert "pipeline.evaluation.leak_check._ChangedWindows" in found
    assert not any(name.endswith(EmbeddingFlow.__name__) for name in found)


def test_every_excuse_is_of_an_implementation_and_gives_a_reason() -> None:
    every = set[str]().union(*(implementations(protocol) for protocol in protocols().values()))
    assert EXCUSED.keys() <= every
    assert all(len(reason.split()) > 3 for reason in EXCUSED.values())
