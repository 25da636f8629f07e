"""A store that an earlier version wrote: embedding into it embeds nothing, and its names stay."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.encoders import make_encoder
from pipeline.embedding.plan import plan_embedding
from pipeline.embedding.run import embed, embed_batch
from pipeline.experiments import BEST_ENCODER
from pipeline.foundation.errors import StoreError
from pipeline.sources.array_folder import ArrayFolder
from pipeline.store.admin import verify_store
from pipeline.store.base import ENTRY_FILE
from pipeline.store.embeddings import MANIFEST, EmbeddingStore

FIRST, SECOND = "945faa7ce489114af699345304509453", "ce718d6644afe9a20c1099fb05ca73c1"
SOURCES = {FIRST: "b53ae0b5a4db1af25bf8b110ee35e8bf", SECOND: "13d73f878e12f914ce0a7cb613cf74de"}
"""Content hashes of the two patients' files."""
WEIGHTS = "b7ad71d5ae78d1769bc488041cdbc183eff9e51e631fc7cf8cce3cef0636d9a8"
LABELS = {"float32": "ppg_gpt_1m_long+mean", "bfloat16": "ppg_gpt_1m_long+mean_bfloat16_r2"}
FOLDERS = {
    "float32": {FIRST: "4b3079c9e4c2d49e5421e4ce65510536", SECOND: "a978f2a381259fdfdd076794d9720790"},
    "bfloat16": {FIRST: "f0159391f7aa088f0c01a13c7a1859b9", SECOND: "f6de7c7fbaab9aac500c44b69db355ec"},
}
DATA_HASHES = {
    "float32": {FIRST: "05b9fb47ed682e5d2679b5e8b573c0ed", SECOND: "9f25e37ff353d152c457ad0e975f8eea"},
    "bfloat16": {FIRST: "04f08f97e9a9ea12f70a90e107a1e591", SECOND: "706687e8db54d5ca7087fd5213f0f519"},
}
PROVENANCE = {"float32": "6b7628a1ea7f42c6fd14642e552a3094", "bfloat16": "7842cfdeb96f52a37c4cf897440487aa"}
DATA_VERSIONS = {
    "float32": "8a62f61a832d4f55afc1c7068c105fe601bf006ac5ee1a27cc0146babe16ea0a",
    "bfloat16": "09b9ca36e9c0d51fa58cdc31f881515fa880bf3eaed20254e7048f1f63457b42",
}


def entries_of(precision: str) -> dict[str, dict]:
    return {
        patient: {
            "data_hash": DATA_HASHES[precision][patient],
            "exclusions": {},
            "key": {
                "dtype": "float16",
                "encoder_name": LABELS[precision],
                "preprocessing_version": "windows-1-5cee58dc0afc",
                "source_hash": SOURCES[patient],
                "weights_hash": WEIGHTS,
            },
            "n_windows": 3,
            "path": f"{patient}/{folder}",
            "patient": patient,
            "provenance": PROVENANCE[precision],
            "quality_histogram": [*(0,) * 9, 3],
            "retired": False,
            "width": 128,
        }
        for patient, folder in FOLDERS[precision].items()
    }


def write_patients(root: Path) -> ArrayFolder:
    root.mkdir()
    for patient in range(2):
        path = root / f"bed{patient}.npy"
        np.save(path, (np.arange(1200 * 3) * (7 + patient) % 101).astype(np.float32))
        about = {"patient_id": f"A{patient}", "start": "2111-05-02T10:00:00", "sampling_rate_hz": 40}
        path.with_suffix(".json").write_text(json.dumps(about))
        os.utime(path, ns=(10**18, 10**18))
    return ArrayFolder(root)


def empty_store(root: Path) -> EmbeddingStore:
    root.mkdir()
    (root / "patient_key").write_bytes(b"k" * 32)
    (root / "patient_key").chmod(0o600)
    return EmbeddingStore.open(root)


def old_store(root: Path, precision: str) -> EmbeddingStore:
    """Return a store as the version before wrote it, without the arrays."""
    store, entries = empty_store(root), entries_of(precision)
    text = json.dumps({"format": 1, "entries": entries}, sort_keys=True, indent=1)
    (store.root / MANIFEST).write_text(f"{text}\n")
    for entry in entries.values():
        (store.root / entry["path"]).mkdir(parents=True)
        written = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        (store.root / entry["path"] / ENTRY_FILE).write_text(written)
    return store


@pytest.mark.parametrize("precision", LABELS)
def test_a_store_of_the_version_before_stays_valid(tmp_path: Path, precision: str) -> None:
    source, store, entries = (
        write_patients(tmp_path / "waveforms"),
        old_store(tmp_path / "store", precision),
        entries_of(precision),
    )
    before = (store.root / MANIFEST).read_bytes()
    encoder = make_encoder("ppg_gpt_1m_long+mean", precision=precision, device="cpu")
    summary = embed(source, store, encoder, EncodingConfig())
    assert (summary.embedded, summary.adopted, summary.unchanged) == (0, 0, 2)
    assert summary.data_version == DATA_VERSIONS[precision], "nothing downstream is out of date"
    assert (store.root / MANIFEST).read_bytes() == before
    fresh = empty_store(tmp_path / "fresh")
    embed(source, fresh, encoder, EncodingConfig())
    paths = {patient: entry.path for patient, entry in fresh.manifest().items()}
    assert paths == {patient: entry["path"] for patient, entry in entries.items()}


def test_what_the_first_version_stored_is_read_to_the_bit(tmp_path: Path) -> None:
    """``first_store.zip``: these two patients as commit 009880e embedded them in float32, arrays and all."""
    with zipfile.ZipFile(Path(__file__).with_name("first_store.zip")) as archive:
        archive.extractall(tmp_path / "store")
    (tmp_path / "store" / "patient_key").chmod(0o600)
    store, source = EmbeddingStore.open(tmp_path / "store"), write_patients(tmp_path / "waveforms")
    assert {patient: entry.data_hash for patient, entry in store.manifest().items()} == DATA_HASHES["float32"]
    report = verify_store(store)  # reads every chunk and compares its hash
    assert (report.checked, report.damaged) == (2, {})
    encoder = make_encoder("ppg_gpt_1m_long+mean", precision="float32", device="cpu")
    summary = embed(source, store, encoder, EncodingConfig())
    assert (summary.embedded, summary.adopted, summary.unchanged) == (0, 0, 2)
    fresh = empty_store(tmp_path / "fresh")
    embed(source, fresh, encoder, EncodingConfig())
    for patient in ("A0", "A1"):
        old, new = store.read(patient), fresh.read(patient)
        assert old.embeddings.shape == (3, 128)
        assert np.array_equal(old.start_us, new.start_us)
        np.testing.assert_allclose(
            old.embeddings, new.embeddings, atol=4e-3
        )  # another processor rounds otherwise


@pytest.mark.parametrize("precision", LABELS)
def test_todays_encoder_embeds_it_anew_in_batches(tmp_path: Path, precision: str) -> None:
    """What `default`, `demo` and `recovery` stored by the mean over positions, they store by every layer now."""
    source = write_patients(tmp_path / "waveforms")
    store = old_store(tmp_path / "store", precision)
    encoder, how = make_encoder(BEST_ENCODER, precision=precision, device="cpu"), EncodingConfig()
    plan = plan_embedding(source.catalog(), store, encoder, how.window)
    assert (len(plan.stale), plan.unchanged) == (2, 0)
    assert f"embedded before 2 by {LABELS[precision]}" in str(plan)
    first, second = plan.batches(1)
    store.commit(embed_batch(first, source, store, encoder, how).entries)
    with pytest.raises(StoreError, match="mixes"):
        store.one_encoding()
    store.commit(embed_batch(second, source, store, encoder, how).entries)
    now = store.one_encoding()
    assert now is not None
    assert (now.readout, len(now.projection)) == ("layers+spread", 64)
    assert {entry.width for entry in store.manifest().values()} == {encoder.width}
