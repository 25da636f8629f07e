"""The key's later fields: what an old entry means, that it stays what it is, and what a model may be given."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.encoders.base import EMBED_BATCH
from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.store.embeddings import MANIFEST, EmbeddingStore
from pipeline.store.manifest import (
    EmbeddingKey,
    Encoding,
    entry_to_json,
    manifest_from_json,
    manifest_to_json,
    manifest_version,
)

BFLOAT16 = "ppg_gpt_1m_long+mean_bfloat16_r2"
OLD_KEYS = {
    "f1359749ad4e53d6045b9a4b234cb16a": "fake",
    "1ef27283e71e02e7ec57913442f8d144": BFLOAT16,
}
"""Folder names that the version before these fields gave to keys with this name, and else as in `old_key`."""
OLD_VERSION = "9c2c121e7551a4f82f52465925ada32f9621d17311ca44861bcdcf3536a62c64"
"""Its data version of the manifest `old_manifest`."""


def old_key(name: str) -> dict[str, str]:
    return {
        "dtype": "float16",
        "encoder_name": name,
        "preprocessing_version": "windows-1-0",
        "source_hash": "s",
        "weights_hash": "ab" * 32,
    }


def old_manifest() -> bytes:
    """Return the manifest of two patients as that version wrote it, to the byte."""
    patients = {"aa8d3fbad0c4b2f8a1a5b34fc4a43f8e": BFLOAT16, "11a744da930ffe02f0446383c72c1371": "fake"}
    folders = {name: folder for folder, name in OLD_KEYS.items()}
    entries = {
        patient: {
            "data_hash": "0f9b9650c497d5436036ab1dc5361243",
            "exclusions": {"x": 1},
            "key": old_key(name),
            "n_windows": 3,
            "path": f"{patient}/{folders[name]}",
            "patient": patient,
            "provenance": "",
            "quality_histogram": [3, *(0,) * 9],
            "retired": False,
            "width": 4,
        }
        for patient, name in patients.items()
    }
    return f"{json.dumps({'format': 1, 'entries': entries}, sort_keys=True, indent=1)}\n".encode()


@pytest.mark.parametrize(("folder", "name"), OLD_KEYS.items())
def test_folders_of_today_keep_their_names(folder: str, name: str) -> None:
    assert EmbeddingKey(**old_key(name)).content_hash == folder
    explicit = {
        "readout": "mean" if "+mean" in name else "last",
        "projection": "none",
        "precision": "bfloat16" if "bfloat16" in name else "float32",
        "device": "cpu",
        "batch_windows": EMBED_BATCH,
    }
    assert EmbeddingKey(**old_key(name), **explicit).content_hash == folder
    assert EmbeddingKey(**old_key(name)) == EmbeddingKey(**old_key(name), **explicit)
    for field, other in [("device", "cuda"), ("batch_windows", 4096), ("projection", "cd" * 32)]:
        assert EmbeddingKey(**old_key(name), **{**explicit, field: other}).content_hash != folder


def test_an_old_manifest_is_written_back_as_it_was() -> None:
    entries = manifest_from_json(old_manifest())
    assert manifest_to_json(entries) == old_manifest()
    assert manifest_version(entries) == OLD_VERSION, "nothing downstream is out of date"
    encodings = {entry.encoder_name: entry.encoding for entry in entries.values()}
    assert (encodings[BFLOAT16].readout, encodings[BFLOAT16].precision) == ("mean", "bfloat16")
    assert (encodings["fake"].readout, encodings["fake"].precision) == ("last", "float32")
    assert all((e.device, e.batch_windows, e.projection) == ("cpu", 32, "none") for e in encodings.values())


def test_new_fields_survive_the_manifest_and_the_version_folder() -> None:
    entry = next(iter(manifest_from_json(old_manifest()).values()))
    gpu = replace(entry, key=replace(entry.key, device="cuda", batch_windows=4096, projection="ef" * 32))
    assert manifest_from_json(manifest_to_json({gpu.patient: gpu})) == {gpu.patient: gpu}
    assert json.loads(entry_to_json(gpu))["key"]["device"] == "cuda"


def test_what_a_model_may_be_given() -> None:
    encoding = EmbeddingKey(**old_key(BFLOAT16)).encoding
    assert encoding.serves(replace(encoding, device="cuda", batch_windows=4096))
    assert encoding.serves(replace(encoding, encoder_name=f"my_copy+mean{BFLOAT16[-12:]}")), (
        "the weights are the same"
    )
    for change in (
        {"weights_hash": "cd" * 32},
        {"readout": "last"},
        {"projection": "cd" * 32},
        {"preprocessing_version": "windows-2"},
        {"precision": "float32"},
        {"dtype": "float32"},
        {"encoder_name": BFLOAT16.replace("_r2", "_r3")},
    ):
        assert not encoding.serves(replace(encoding, **change)), change


def test_a_store_of_two_devices_is_refused_until_it_is_one(tmp_path: Path) -> None:
    store = EmbeddingStore.open(tmp_path, create=True)
    quality = np.zeros((1, len(QUALITY_COLUMNS)), np.float32)
    for patient, device in (("a", "cpu"), ("b", "cuda")):
        key = EmbeddingKey(**old_key("fake"), device=device)
        with store.stage(patient, key, width=2) as writer:
            writer.append(np.array([WINDOW_US]), np.ones((1, 2), np.float32), quality)
            store.commit([writer.finish()])
    with pytest.raises(StoreError, match=r"float32 on cpu by 32\), fake .*float32 on cuda by 32"):
        store.one_encoding()


def test_a_version_without_the_hash_of_its_source_is_refused(tmp_path: Path) -> None:
    store = EmbeddingStore.open(tmp_path, create=True)
    key = EmbeddingKey(**{**old_key("fake"), "source_hash": ""})
    with store.stage("a", key, width=2) as writer, pytest.raises(ValueError, match="hash of its source"):
        writer.finish()
    with store.stage("a", key, width=2) as writer:
        entry = writer.finish(source_hash="s")
    assert entry.path.endswith("f1359749ad4e53d6045b9a4b234cb16a")
    store.commit([entry])
    assert store.has_finished(store.patient_key("a"), entry.encoding)
    assert not store.has_finished(store.patient_key("a"), replace(entry.encoding, device="cuda"))
    assert not store.has_finished(store.patient_key("b"), entry.encoding)
    assert "device" not in (tmp_path / MANIFEST).read_text()


def test_the_phrase_names_everything() -> None:
    gpu = Encoding(
        encoder_name="e", weights_hash="ab" * 32, preprocessing_version="p", projection="cd" * 32, device="cuda",
        batch_windows=4096, precision="bfloat16",
    )  # fmt: skip
    assert str(gpu) == "e (abababab, p, float16, last, projection cdcdcdcd, bfloat16 on cuda by 4096)"
