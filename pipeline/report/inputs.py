"""What the report is made of, and the views on it that several sections share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.foundation.schema import METHODS, PROTOCOLS
from pipeline.report.flow import Flow
from pipeline.report.synthetic import SyntheticCohort
from pipeline.training.makeup import Makeup


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Tables and facts of one experiment; nothing here may hold a patient id, record name or date of care.

    ``predictions`` is the exception: it goes into pictures and sums, its identifiers are never printed.
    """

    experiment: str
    """Name of the experiment."""
    predictions: pd.DataFrame
    """``schema.PREDICTION_COLUMNS`` of measured draws, with intervals; splits ``test`` (shown) and ``calibration``."""
    evaluation: pd.DataFrame
    """``schema.EVALUATION_COLUMNS``."""
    comparisons: pd.DataFrame | None = None
    """``evaluation.COMPARISON_COLUMNS``; MT+PCS minus its twin and whatever else was compared."""
    delays: pd.DataFrame | None = None
    """``result_delay.DELAY_COLUMNS``: the methods when results come later."""
    created: str = ""
    """When the report was made, as text."""
    config_hash: str = ""
    """sha256 of the configuration."""
    encoder: str = ""
    """Name of the frozen PPG encoder."""
    source: str = ""
    """What the data are, for example "synthetic cohort" or "MIMIC-III v1.4"."""
    data_licence: str = ""
    """Licence of the data and what it allows to be shared."""
    caveat: str = ""
    """Why this experiment's figures flatter, when they do; printed with every table."""
    departures: Sequence[str] = ()
    """What of the methods that carry the paper's names is ours here; said once."""
    synthetic: SyntheticCohort | None = None
    """The cohort, where it is ours: coupling and oracle."""
    makeups: Sequence[Makeup] = ()
    """What each trained method is made of, counted, first seed."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Further facts, shown as given: versions, seeds, data version."""
    flow: Flow | None = None
    """Patients and draws, from the recordings to the test."""
    characteristics: pd.DataFrame | None = None
    """``evaluation.characteristics.CHARACTERISTIC_COLUMNS``: who is in which split."""
    card: Sequence[tuple[str, str]] = ()
    """Facts of the model card: (name, value), in order."""
    exclusions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Stage -> reason -> how many were dropped."""
    made_of: pd.DataFrame | None = None
    """``method`` and ``training.shares.SHARE_COLUMNS``: what made each method's estimates, first seed."""
    initial_state: pd.DataFrame | None = None
    """``method`` and ``training.initial_state.SURVIVAL_COLUMNS``: how long h0 lasts, first seed."""
    training_curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Method -> epoch rows of ``pipeline.training.curves.read_curves``."""
    trajectories: pd.DataFrame | None = None
    """``sequence`` (a label, no identity), ``lab, hours_since_t0, estimate, lower, upper``, ``protocol``, and
    optionally ``interval_state``: why there is no interval."""
    draws: pd.DataFrame | None = None
    """``sequence, lab, hours_since_t0, value``: the draws beside those trajectories."""
    patients: pd.DataFrame | None = None
    """Demographics for the subgroups: see ``subgroups.subgroup_table``."""
    quality: pd.DataFrame | None = None
    """Signal quality of the scored draws: see ``subgroups.subgroup_table``."""
    interval_level: float = 0.9
    """Level that the prediction intervals promise."""

    @cached_property
    def protocol(self) -> str:
        """The protocol of the detailed figures: ``start`` when it was scored."""
        present = set(self.evaluation["protocol"])
        return next((name for name in PROTOCOLS if name in present), PROTOCOLS[0])

    @cached_property
    def method(self) -> str:
        """The method of the detailed figures: MT+PCS, or the last one that was scored."""
        present = set(self.evaluation["method"])
        return "mt_pcs" if "mt_pcs" in present else [name for name in METHODS if name in present][-1]

    @cached_property
    def blocks(self) -> list[ScoredSet]:
        """Measured test draws per lab under ``protocol``, lowest seed."""
        return [block for block in scored_sets(self.focus) if self.method in block.estimates]

    @cached_property
    def focus(self) -> pd.DataFrame:
        """Predictions of ``protocol``, lowest seed, all splits and methods."""
        rows = self.predictions.loc[self.predictions["protocol"] == self.protocol]
        return rows.loc[rows["seed"] == rows["seed"].min()]
