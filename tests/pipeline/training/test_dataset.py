import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cohort.alignment import align
from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.sequences import cut_sequences
from pipeline.foundation.errors import ConfigError, StoreError
from pipeline.foundation.schema import DAY_US, LAB_NAMES, WINDOW_US
from pipeline.testing.cohort import MemoryStore
from pipeline.testing.handmade import BASE_US, admissions, lab_events, memory_store, memory_windows
from pipeline.training.dataset import POOLED_WINDOWS, PieceDataset, pack, scale_history, twin_mapping
from pipeline.training.embedding_cache import CachedPatient, EmbeddingCache, _read

STEPS = [step for step in range(600) if step % 7]
SCALER = LabScaler(
    low=dict.fromkeys(LAB_NAMES, 0.0),
    high=dict.fromkeys(LAB_NAMES, 200.0),
    fitted_on="train",
    n_patients=2,
    split_hash="abc",
)


def make(patients=("1", "2", "3"), *, steps=STEPS, rows=None, **more):
    """A small cohort, its store, and a data set of all its pieces."""
    store = memory_store({patient: steps for patient in patients})
    minutes = [(-60, 138), (60, 140), (120, 146)] if rows is None else rows
    events = lab_events([(p, "sodium", v, m, m) for p in patients for m, v in minutes])
    aligned = align(cut_sequences(store, patients, admissions()), events, store)
    arguments = {"patients": patients, "protocol": None, "pooling": "mean"} | more
    return aligned, store, PieceDataset(aligned, store, SCALER, **arguments)


def by_id(dataset):
    return {item.piece_id: item for item in (dataset[i] for i in range(len(dataset)))}


def test_embeddings_and_mask_are_those_of_the_pieces_windows():
    aligned, store, dataset = make()
    windows = store.read("1")
    for index, item in enumerate(dataset[i] for i in range(len(dataset))):
        piece = aligned.pieces.set_index("piece_id").loc[item.piece_id]
        assert dataset.n_steps(index) == len(item.step_mask) == piece["n_steps"]
        if piece["patient_id"] == "1":
            grid = (windows.start_us - windows.start_us[0]) // WINDOW_US
            expected = np.zeros((piece["n_steps"], 4), np.float32)
            inside = (grid >= piece["first_step"]) & (grid < piece["first_step"] + piece["n_steps"])
            expected[grid[inside] - piece["first_step"]] = windows.embeddings[inside]
            np.testing.assert_array_equal(item.embeddings, expected)
            assert item.step_mask.sum() == inside.sum()


def test_targets_are_scaled_and_zero_without_weight():
    aligned, _, dataset = make()
    item = dataset[0]
    targets = aligned.piece_targets(0)
    sodium = LAB_NAMES.index("sodium")
    np.testing.assert_array_equal(item.weights, targets.weight.astype(np.float32))
    np.testing.assert_allclose(
        item.targets[:, sodium], np.nan_to_num(targets.value[:, sodium] / 200), rtol=1e-6
    )
    assert (item.targets[item.weights == 0] == 0).all()
    assert item.weights[:, sodium].any()
    assert not item.weights[:, [i for i in range(5) if i != sodium]].any()


def test_history_values_are_scaled_like_targets_and_ages_to_about_one():
    _, _, dataset = make()
    item = by_id(dataset)["00000000-a0001"]  # the cut at 60 min: results of 2 h before and of now
    assert item.history_present.tolist() == [False, False, True, False, False]
    assert item.history[2, 1] == pytest.approx(140 / 200)
    assert item.history[2, 2] == 0
    assert item.history[2, 3] == pytest.approx(np.log1p(2) / np.log1p(720))
    assert (item.history[[0, 1, 3, 4]] == 0).all()
    oldest = np.array([[[np.nan, np.nan, np.log1p(720), 0]] * 5], dtype=np.float32)[0]
    assert scale_history(oldest, SCALER)[0].tolist() == pytest.approx([0, 0, 1, 0])


def test_task_labs_choose_the_targets_and_leave_the_history_whole():
    _, _, dataset = make(labs=("sodium",))
    assert dataset[0].targets.shape[1] == 1
    assert dataset[0].history.shape == (5, 4)
    assert dataset[0].weights.any()


def test_patients_and_protocol_choose_the_pieces():
    _, _, dataset = make(protocol="start")
    assert dataset.piece_ids == ("00000000-s0000", "00000001-s0000", "00000002-s0000")
    aligned, store, _ = make()
    few = PieceDataset(aligned, store, SCALER, patients=["2", "9"], protocol="start")
    assert few.piece_ids == ("00000001-s0000",)
    with pytest.raises(IndexError):
        few[1]


class TestPooled:
    def test_it_is_the_mean_of_the_windows_that_end_at_or_before_t0(self):
        aligned, store, dataset = make()
        windows = store.read("1")
        for piece_id, item in by_id(dataset).items():
            piece = aligned.pieces.set_index("piece_id").loc[piece_id]
            if piece["patient_id"] == "1":
                before = windows.start_us + WINDOW_US <= piece["t0_us"]
                expected = windows.embeddings[before].astype(np.float64).mean(axis=0)
                np.testing.assert_array_equal(item.pooled, expected.astype(np.float32))
                assert item.pooled_present

    def test_earlier_recordings_count_for_thirty_days(self):
        per_day = DAY_US // WINDOW_US
        late = 30 * per_day
        # t0 is the end of step late + 59; the window of step 59 ends exactly 30 days before it
        steps = [58, 59, *range(late, late + 300)]
        minutes = late / 2
        aligned, store, dataset = make(("1",), steps=steps, rows=[(minutes - 60, 138), (minutes + 60, 140)])
        item = by_id(dataset)[aligned.pieces["piece_id"].iloc[0]]
        embeddings = store.read("1").embeddings.astype(np.float64)
        np.testing.assert_array_equal(item.pooled, embeddings[1:62].mean(axis=0).astype(np.float32))

    def test_without_any_window_before_t0_it_is_absent(self):
        store = memory_store({"1": range(300)})
        events = lab_events([("1", "sodium", v, m, m) for m, v in ((-60, 138), (60, 140))])
        aligned = align(
            cut_sequences(store, ["1"], admissions()), events, store, AlignmentConfig(start_history_windows=0)
        )
        item = PieceDataset(aligned, store, SCALER, patients=["1"], protocol="start")[0]
        assert not item.pooled_present
        assert (item.pooled == 0).all()

    def test_sampled_draws_change_with_epoch_and_seed_and_nothing_else(self):
        def pooled(seed, epoch, steps=STEPS):
            rows = [(-60, 138), (60, 140), (120, 146), (200, 141)]
            _, _, dataset = make(pooling="sampled", seed=seed, steps=steps, rows=rows)
            dataset.set_epoch(epoch)
            return by_id(dataset)["00000000-a0002"].pooled  # t0 after 120 min: 205 windows

        np.testing.assert_array_equal(pooled(0, 0), pooled(0, 0))
        np.testing.assert_array_equal(
            pooled(0, 0), pooled(0, 0, steps=STEPS[:450])
        )  # the future does not matter
        assert not np.array_equal(pooled(0, 0), pooled(0, 1))
        assert not np.array_equal(pooled(0, 0), pooled(1, 0))

    def test_sampled_means_of_few_windows_are_means_of_all(self):
        steps = range(60 - POOLED_WINDOWS + 4, 600)
        _, _, sampled = make(pooling="sampled", steps=steps, protocol="start")
        _, _, mean = make(pooling="mean", steps=steps, protocol="start")
        np.testing.assert_array_equal(sampled[0].pooled, mean[0].pooled)


class TestTwin:
    @given(
        st.sets(st.text("0123456789", min_size=1, max_size=6), min_size=2, max_size=30), st.integers(0, 99)
    )
    def test_everyone_has_another_and_everyone_is_someones(self, patients, seed):
        twins = twin_mapping(patients, seed)
        assert set(twins) == set(twins.values()) == patients
        assert all(patient != twin for patient, twin in twins.items())

    def test_one_patient_has_no_twin(self):
        with pytest.raises(ConfigError, match="one patient only"):
            make(("1",), twin=True)

    def test_the_twins_embeddings_come_on_the_own_mask(self):
        aligned, store, twin = make(("1", "2"), twin=True)
        own = PieceDataset(aligned, store, SCALER, patients=("1", "2"))
        for index in range(len(own)):
            a, b = own[index], twin[index]
            np.testing.assert_array_equal(a.step_mask, b.step_mask)
            np.testing.assert_array_equal(a.targets, b.targets)
            np.testing.assert_array_equal(a.history, b.history)
            assert (b.embeddings[~b.step_mask] == 0).all()
            assert not np.isclose(a.embeddings[a.step_mask], b.embeddings[b.step_mask]).any()
            assert not np.isclose(a.pooled, b.pooled).any()

    def test_a_short_twin_is_cycled(self):
        store = memory_store({"1": range(400), "2": range(150)})
        events = lab_events(
            [(p, "sodium", v, m, m) for p in "12" for m, v in ((-60, 138), (60, 139), (195, 140))]
        )
        aligned = align(cut_sequences(store, ["1", "2"], admissions()), events, store)
        dataset = PieceDataset(aligned, store, SCALER, patients=["1", "2"], protocol="start", twin=True)
        item = by_id(dataset)["00000000-s0000"]
        short = store.read("2").embeddings.astype(np.float32)
        np.testing.assert_array_equal(item.embeddings, short[np.arange(60, 390) % 150])

    def test_only_patients_of_the_split_are_twins(self):
        aligned, store, _ = make(("1", "2", "3", "4"))
        dataset = PieceDataset(aligned, store, SCALER, patients=("1", "2"), twin=True, protocol="start")
        np.testing.assert_array_equal(
            dataset[0].embeddings[dataset[0].step_mask],
            store.read("2")
            .embeddings[np.isin(np.array(STEPS), np.arange(61, 61 + 200))][: dataset[0].step_mask.sum()]
            .astype(np.float32),
        )


class TestPack:
    def test_pieces_lie_end_to_end(self):
        _, _, dataset = make()
        items = [dataset[i] for i in range(len(dataset))]
        batch = pack(items)
        assert batch.piece_ids == dataset.piece_ids
        assert batch.inputs.cu_seqlens.tolist() == np.cumsum([0, *(len(i.step_mask) for i in items)]).tolist()
        for number, item in enumerate(items):
            part = slice(int(batch.inputs.cu_seqlens[number]), int(batch.inputs.cu_seqlens[number + 1]))
            np.testing.assert_array_equal(batch.inputs.embeddings[part], item.embeddings)
            np.testing.assert_array_equal(batch.inputs.step_mask[part], item.step_mask)
            np.testing.assert_array_equal(batch.targets[part], item.targets)
            np.testing.assert_array_equal(batch.weights[part], item.weights)
            np.testing.assert_array_equal(batch.inputs.history[number], item.history)
            np.testing.assert_array_equal(batch.inputs.pooled[number], item.pooled)
        assert torch.isfinite(batch.targets).all()
        assert torch.isfinite(batch.inputs.history).all()


class TestCache:
    def test_it_keeps_no_more_than_its_bound(self):
        patients = [f"{i}" for i in range(6)]
        store = memory_store({patient: range(500) for patient in patients})
        one = _read(store, "0").n_bytes
        cache = EmbeddingCache(store, max_bytes=2 * one)
        for patient in patients * 2:
            cache.get(patient)
            assert sum(kept.n_bytes for kept in cache._patients.values()) <= 2 * one

    def test_the_patient_in_use_is_kept_even_if_larger_than_the_bound(self):
        cache = EmbeddingCache(memory_store({"1": range(50)}), max_bytes=0)
        assert cache.get("1") is cache.get("1")

    def test_a_patient_read_lately_is_not_read_again(self):
        class Counting(MemoryStore):
            def read(self, patient_id):
                reads.append(patient_id)
                return super().read(patient_id)

        reads = []
        cache = EmbeddingCache(Counting(windows=memory_store({"1": range(9), "2": range(9)}).windows))
        for patient in ("1", "2", "1", "1", "2"):
            cache.get(patient)
        assert reads == ["1", "2"]

    def test_a_negative_bound_is_refused(self):
        with pytest.raises(ValueError, match="max_bytes"):
            EmbeddingCache(memory_store({}), max_bytes=-1)

    @settings(deadline=None)
    @given(st.integers(1, 700), st.data())
    def test_means_are_exact_and_go_around_the_end(self, n, data):
        first = data.draw(st.integers(0, 2 * n))
        stop = data.draw(st.integers(first + 1, first + 3 * n))
        rng = np.random.default_rng(n)
        table = (rng.normal(size=(n, 3)) * 10 ** rng.uniform(-4, 2, (n, 1))).astype(np.float16)
        windows = memory_windows([])
        store = MemoryStore(
            windows={
                "1": type(windows)(
                    start_us=BASE_US + np.arange(n) * WINDOW_US,
                    quality=np.zeros((n, 6), np.float32),
                    embeddings=table,
                )
            }
        )
        patient: CachedPatient = _read(store, "1")
        rows = np.arange(first, stop) % n
        order = np.random.default_rng(int(hashlib.sha256(f"{n}".encode()).hexdigest()[:8], 16)).permutation(
            len(rows)
        )
        expected = (table[rows[order]].astype(np.float64).sum(axis=0) / len(rows)).astype(np.float32)
        np.testing.assert_array_equal(patient.mean(first, stop), expected)


def test_a_store_that_lost_windows_since_is_refused():
    aligned, _, _ = make(("1",))
    changed = memory_store({"1": STEPS[::2]})
    dataset = PieceDataset(aligned, changed, SCALER, patients=["1"])
    with pytest.raises(StoreError, match="changed since"):
        dataset[0]


def test_an_unknown_pooling_is_refused():
    with pytest.raises((ValueError, TypeError), match="pooling"):
        make(pooling="max")
