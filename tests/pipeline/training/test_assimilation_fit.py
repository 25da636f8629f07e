from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from models.assimilation.config import AssimilationConfig, FitConfig
from models.assimilation.known import Query
from models.assimilation.reading_network import ReadingNetwork
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import HOUR_US, WINDOW_US
from pipeline.testing.cohort import ORIGIN_US, MemoryWindows, TinyCohort, delayed, tiny_cohort
from pipeline.training.assimilation_fit import FittedAssimilation, NetworkFit, fit_assimilation
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.filter_forecaster import PatientFilter, oldest_draw
from pipeline.training.lab_filter_fit import SHARES
from pipeline.training.reading_network_config import ReadingNetworkShape
from pipeline.training.reading_network_fit import network_config
from pipeline.training.ten_minute_means import BLOCK_US, BlockReader

QUICK = AssimilationConfig(labs=("potassium", "glucose"), fit=FitConfig(most_iterations=12))


@pytest.fixture(scope="module")
def cohort() -> TinyCohort:
    return tiny_cohort(n_patients=60, hours=6.0, draws=5, labs=("potassium", "glucose"))


@pytest.fixture(scope="module")
def fitted(cohort) -> FittedAssimilation:
    return fit_assimilation(cohort.aligned, cohort.store, cohort.splits.members["train"], QUICK)


def estimates(fitted, cohort, patient, query):
    """Return clinical medians (labs, queries) of a patient, and the spreads of draws."""
    reader = BlockReader(cohort.aligned.sequences, EmbeddingCache(cohort.store))
    asked = PatientFilter(
        model=fitted.model,
        means=reader.embedding_means(patient),
        series=cohort.aligned.series.get(patient, {}),
        oldest_us=oldest_draw(cohort.aligned.config, reader.first_us(patient)),
    )
    answers = asked.at(query.at_us, query.known_us)
    return answers.median.T, answers.draw_spread.T


def test_it_estimates_draws_of_other_patients_better_than_the_last_value_and_than_results_alone(
    fitted, cohort
):
    assert [lab.fit.status for lab in fitted.labs] == ["fitted", "fitted"]
    deaf = replace(
        fitted, labs=tuple(replace(lab, line=replace(lab.line, whole=None)) for lab in fitted.labs)
    )
    errors = {"ours": [], "last": [], "results alone": []}
    others = sorted(set(cohort.store.windows) - set(cohort.splits.members["train"]))
    for patient in others:
        series = cohort.aligned.series[patient]["potassium"]
        asked = Query.draws(series.sampled_us[1:])
        errors["ours"] += list(estimates(fitted, cohort, patient, asked)[0][0] - series.value[1:])
        errors["results alone"] += list(estimates(deaf, cohort, patient, asked)[0][0] - series.value[1:])
        errors["last"] += list(series.value[:-1] - series.value[1:])
    square = {name: float(np.square(e).mean()) for name, e in errors.items()}
    assert square["ours"] < 0.7 * square["last"]
    assert square["ours"] < 0.9 * square["results alone"]


def test_readings_enter_where_they_clearly_help_alone(fitted, cohort):
    """A twin's waveform knows nothing of the patient: its filter sees results alone, and says so."""
    assert fitted.model.reads_waveform.tolist() == [True, True]
    patients = cohort.splits.members["train"]
    other = fit_assimilation(
        cohort.aligned,
        cohort.store,
        patients,
        QUICK,
        twins=dict(zip(patients, [*patients[1:], patients[0]], strict=True)),
    )
    for lab, reads in zip(other.labs, other.model.reads_waveform, strict=True):
        assert not reads
        assert lab.status.startswith("fitted; results alone: readings of the waveform did not clearly help")
        assert float(lab.fit.parameters.gain) == 0.0
        assert lab.fit.n_readings == 0


def test_readings_of_training_patients_come_from_lines_that_have_not_seen_them(fitted, cohort):
    patient = sorted(cohort.splits.members["train"])[0]
    lab = fitted.labs[0]
    changed = cohort.labs.copy()
    mine = changed["patient_id"] == patient
    changed.loc[mine, "value"] *= 1.2
    again = fit_assimilation(
        cohort.with_labs(changed).aligned, cohort.store, cohort.splits.members["train"], QUICK
    )
    own, other = (f.labs[0].line.without[f.folds[patient]] for f in (fitted, again))
    spread = again.labs[0].transform.spread / lab.transform.spread
    # Equal but for the scale, of all training draws, whose rounding moves the search for the errors' covariance.
    np.testing.assert_allclose(own.weights, other.weights * spread, rtol=1e-4, atol=1e-6)
    assert not np.allclose(lab.line.whole.weights, again.labs[0].line.whole.weights * spread, rtol=1e-3)


def test_nothing_after_a_time_changes_a_bit_of_an_estimate(fitted, cohort):
    """Windows, results and corrections that come later, of a patient outside training."""
    patient = sorted(set(cohort.store.windows) - set(cohort.splits.members["train"]))[0]
    late = cohort.with_labs(delayed(cohort.labs, 0.5))
    now = ORIGIN_US + 3 * HOUR_US
    query = Query.anchored(np.array([now - HOUR_US, now]))
    before = estimates(fitted, late, patient, query)
    windows = dict(late.store.windows)
    own = windows[patient]
    noise = np.where((own.start_us + WINDOW_US > now)[:, None], np.float16(1.0), np.float16(0.0))
    windows[patient] = MemoryWindows(
        start_us=own.start_us, embeddings=own.embeddings + noise, quality=own.quality
    )
    labs = late.labs.copy()
    labs.loc[(labs["patient_id"] == patient) & (labs["available_at_us"] > now), "value"] *= 1.5
    first = labs.index[(labs["patient_id"] == patient)][[0]]
    corrected = labs.loc[first].assign(value=9.0, available_at_us=now + 1)
    other = late.with_windows(windows).with_labs(pd.concat([labs, corrected]))
    after = estimates(fitted, other, patient, query)
    assert [x.tolist() for x in before] == [x.tolist() for x in after]
    later = Query.anchored(np.array([now + 2 * HOUR_US]))
    assert (estimates(fitted, late, patient, later)[0] != estimates(fitted, other, patient, later)[0]).all()


def test_a_blocks_mean_is_that_of_its_windows_and_known_at_its_end(cohort):
    patient = sorted(cohort.store.windows)[0]
    reader = BlockReader(cohort.aligned.sequences, EmbeddingCache(cohort.store))
    means, windows = reader.embedding_means(patient), cohort.store.windows[patient]
    for end, mean in list(zip(means.end_us, means.mean, strict=True))[:4]:
        inside = (windows.start_us >= end - BLOCK_US) & (windows.start_us + WINDOW_US <= end)
        assert inside.sum() >= 5
        np.testing.assert_allclose(mean, windows.embeddings[inside].astype(float).mean(axis=0), atol=1e-12)
    assert means.latest(int(means.end_us[3]), 3 * BLOCK_US) == pytest.approx(means.mean[1:4].mean(axis=0))
    assert means.latest(int(means.end_us[0]) - 1, 3 * BLOCK_US) is None


def test_a_twin_is_read_on_the_own_mask(cohort):
    one, other = sorted(cohort.store.windows)[:2]
    cache = EmbeddingCache(cohort.store)
    own, twin = (
        BlockReader(cohort.aligned.sequences, cache, twins).embedding_means(one)
        for twins in (None, {one: other})
    )
    assert own.end_us.tolist() == twin.end_us.tolist()
    assert not np.allclose(own.mean, twin.mean)


def test_a_lab_with_too_few_draws_keeps_the_priors_numbers_and_no_reading(cohort):
    few = cohort.labs[
        (cohort.labs["lab"] != "glucose")
        | (cohort.labs["patient_id"] == sorted(cohort.splits.members["train"])[0])
    ]
    made = cohort.with_labs(few)
    config = replace(QUICK, labs=("glucose", "lactate"))
    fitted = fit_assimilation(made.aligned, made.store, made.splits.members["train"], config)
    for lab, drawn in zip(fitted.labs, (5, 0), strict=True):
        assert lab.status.startswith(f"too few draws to fit: {drawn} of at least 20")
        assert "no readings" in lab.status
    patient = sorted(set(cohort.store.windows) - set(cohort.splits.members["train"]))[0]
    values, variances = estimates(fitted, made, patient, Query.anchored(np.array([ORIGIN_US + HOUR_US])))
    assert np.isfinite(values).all()
    assert (variances > 0).all()
    assert torch.isfinite(fitted.model.parameters_by_lab.axis).all()


def test_no_training_patient_and_an_unknown_lab_are_refused(cohort):
    with pytest.raises(ConfigError, match="No training patient has a sequence"):
        fit_assimilation(cohort.aligned, cohort.store, ["nobody"], QUICK)
    with pytest.raises(ConfigError, match="assimilation names chloride; the labs are calcium"):
        fit_assimilation(
            cohort.aligned, cohort.store, cohort.splits.members["train"], replace(QUICK, labs=("chloride",))
        )


def test_an_assay_that_scatters_more_is_trusted_less(cohort):
    """Every other draw of potassium comes from a noisier assay; of equal ones nothing is made."""
    labs = cohort.labs.sort_values(["patient_id", "lab", "sampled_at_us"]).reset_index(drop=True)
    other = (labs["lab"] == "potassium") & (labs.index % 2 == 1)
    labs.loc[other, "source_code"] = "50822"
    noisy = labs.copy()
    noisy.loc[other, "value"] += np.random.default_rng(0).normal(scale=0.8, size=int(other.sum()))
    train = cohort.splits.members["train"]
    config = replace(QUICK, labs=("potassium",))
    models = []
    for frame in (labs, noisy):
        made = cohort.with_labs(frame)
        models.append(fit_assimilation(made.aligned, made.store, train, config).model)
    assert models[0].noise_of("50822") <= 2 < 4 <= models[1].noise_of("50822")
    assert models[1].noise_of("test") == models[1].noise_of("never seen") == 1
    # The same draw moves the estimate less when it comes from that assay.
    patient = sorted(set(cohort.store.windows) - set(train))[0]
    estimate = {}
    for code in ("test", "50822"):
        own = cohort.aligned.series[patient]["potassium"]
        first = replace(
            own, value=own.value[:1] + 2.0, sampled_us=own.sampled_us[:1], available_us=own.available_us[:1],
            source_code=np.array([code], object),
        )  # fmt: skip
        reader = BlockReader(cohort.aligned.sequences, EmbeddingCache(cohort.store))
        asked = PatientFilter(
            model=models[1], means=reader.embedding_means(patient), series={"potassium": first}, oldest_us=0
        )
        at = np.array([own.sampled_us[0] + HOUR_US])
        estimate[code] = asked.at(at, at).median[0, 0]
    assert estimate["50822"] < estimate["test"] - 0.1


def noisy(cohort: TinyCohort) -> list[np.ndarray]:
    """Say something of each training patient's blocks that has nothing to do with a lab."""
    rng = np.random.default_rng(0)
    reader = BlockReader(cohort.aligned.sequences, EmbeddingCache(cohort.store))
    patients = sorted(cohort.splits.members["train"])
    return [rng.normal(size=(len(reader.embedding_means(patient).end_us), 2)) for patient in patients]


def test_networks_count_where_the_draws_are_expected_better_by_them(cohort, monkeypatch):
    """What networks say is put in their place: noise, and the true slow value that moves labs and embeddings."""
    train = cohort.splits.members["train"]
    reader = BlockReader(cohort.aligned.sequences, EmbeddingCache(cohort.store))
    true = [reader.embedding_means(patient).mean[:, -1:] @ np.ones((1, 2)) for patient in sorted(train)]
    how = NetworkFit(
        shape=ReadingNetworkShape(folds=2, least_draws=0, d_model=4, n_blocks=1, d_state=2, epochs=1)
    )
    blind = cohort.with_windows(
        {
            patient: replace(
                own, embeddings=np.random.default_rng(1).normal(size=own.embeddings.shape).astype(np.float16)
            )
            for patient, own in cohort.store.windows.items()
        }
    )
    shares, gains = {}, {}
    for name, said, made in (("noise", noisy(cohort), cohort), ("truth", true, blind)):

        def told(recordings, shape, n_labs, *_, said=said):
            sizes = network_config(shape, recordings[0].blocks.mean.shape[1])
            return [ReadingNetwork(sizes, n_labs) for _ in range(shape.folds)], said

        monkeypatch.setattr("pipeline.training.assimilation_fit.cross_fit_networks", told)
        fitted = fit_assimilation(made.aligned, made.store, train, QUICK, network=how)
        shares[name] = [lab.network_share for lab in fitted.labs]
        assert all(set(lab.share_log_likelihood) == set(SHARES) for lab in fitted.labs)
        told_of = [lab.share_log_likelihood for lab in fitted.labs]
        gains[name] = [max(likelihood.values()) - likelihood[0.0] for likelihood in told_of]
        assert fitted.model.network.share.tolist() == shares[name]
    assert max(shares["noise"]) <= 0.25
    assert (
        min(shares["truth"]) > 0
    )  # a line that says nothing beside it costs only scale, which the gain mends
    assert min(gains["truth"]) > 10 * max(gains["noise"])
