"""What a store holds: one entry a patient, under a keyed hash, and the version of the whole."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pipeline.foundation.errors import StoreError
from pipeline.foundation.provenance import canonical_json, config_hash

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How windows become stored vectors; equal encodings of equal windows are equal to the bit.

    Attributes
    ----------
    encoder_name, weights_hash : the encoder and the sha256 of its weights
    preprocessing_version : version and configuration of windowing and resampling
    dtype : how the embeddings are stored
    readout : which of the encoder's positions and layers make the embedding
    projection : hash of the fixed projection after the read-out, or "none"
    precision : of the encoder's arithmetic, "float32" or "bfloat16", never "auto"
    device : kind of device that computed, "cpu" or "cuda"
    batch_windows : the encoder's fixed batch

    Notes
    -----
    Older versions wrote the first four alone, with read-out and precision in the name. A field that is left out means
    what held then on a CPU, and one that means just this is left out of JSON and hashes: old folders keep their names.
    """

    encoder_name: str
    weights_hash: str
    preprocessing_version: str
    dtype: str = "float16"
    readout: str = ""
    projection: str = ""
    precision: str = ""
    device: str = ""
    batch_windows: int = 0

    def __post_init__(self) -> None:
        for name, value in _meant_before(self.encoder_name).items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    def __str__(self) -> str:
        """Say everything in one phrase; weights by their first digits."""
        projection = "" if self.projection == "none" else f", projection {self.projection[:8]}"
        return (
            f"{self.encoder_name} ({self.weights_hash[:8]}, {self.preprocessing_version}, {self.dtype}, "
            f"{self.readout}{projection}, {self.arithmetic})"
        )

    @property
    def arithmetic(self) -> str:
        """Precision, device and batch in one phrase."""
        return f"{self.precision} on {self.device} by {self.batch_windows}"

    def plain(self) -> dict[str, Any]:
        """Return the fields as they are written and hashed: without those that have their old meaning."""
        before = _meant_before(self.encoder_name)
        return {name: value for name, value in asdict(self).items() if before.get(name) != value}

    def serves(self, other: "Encoding") -> bool:
        """Whether a model trained on one may be given the other: device, batch and the file's name may differ."""
        return self._meaning() == other._meaning()

    def _meaning(self) -> tuple[str, ...]:
        rounding = _ROUNDING.search(self.encoder_name)
        return (
            self.weights_hash, self.readout, self.projection, self.preprocessing_version, self.dtype, self.precision,
            rounding[0] if rounding else "",
        )  # fmt: skip


_ROUNDING = re.compile(r"_bfloat16_r\d+$")
"""How the label of an encoder in reduced precision ends, with the revision of its rounding."""


def _meant_before(encoder_name: str) -> dict[str, Any]:
    """Return what the later fields of an `Encoding` mean where they are missing: a CPU's, as the name tells them."""
    return {
        "readout": "mean" if _ROUNDING.sub("", encoder_name).endswith("+mean") else "last",
        "projection": "none",
        "precision": "bfloat16" if _ROUNDING.search(encoder_name) else "float32",
        "device": "cpu",
        "batch_windows": 32,
    }


@dataclass(frozen=True, kw_only=True)
class EmbeddingKey(Encoding):
    """Everything that determines a patient's embeddings; equal keys mean equal embeddings.

    Attributes
    ----------
    source_hash : hash of the content of the patient's source records; empty while nobody has read them
    """

    source_hash: str

    @property
    def content_hash(self) -> str:
        """The name of the version folder: 32 hexadecimal digits."""
        return config_hash(self.plain())[:32]

    @property
    def encoding(self) -> Encoding:
        """All but the source."""
        return Encoding(**{field.name: getattr(self, field.name) for field in fields(Encoding)})

    def for_source(self, source_hash: str) -> "EmbeddingKey":
        """Return the key of other records embedded in the same way."""
        return replace(self, source_hash=source_hash)


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """One patient's current version; nothing here tells who the patient is or when the recording was made.

    Attributes
    ----------
    patient : keyed hash of the patient id
    path : version folder, relative to the store
    key : what the embeddings were computed from
    width, n_windows : shape of the embeddings
    data_hash : hash of start times, embeddings and quality as stored
    exclusions : windows and segments left out, by reason
    quality_histogram : windows per tenth of ``spectral_concentration`` from 0 to 1, NaN counted nowhere
    provenance : name of the JSON under ``provenance/``
    retired : the source no longer has this patient; the embeddings are kept
    """

    patient: str
    path: str
    key: EmbeddingKey
    width: int
    n_windows: int
    data_hash: str
    exclusions: Mapping[str, int]
    quality_histogram: tuple[int, ...]
    provenance: str
    retired: bool = False

    @property
    def encoder_name(self) -> str:
        """Name of the encoder."""
        return self.key.encoder_name

    @property
    def source_hash(self) -> str:
        """Hash of the content of the patient's source records."""
        return self.key.source_hash

    @property
    def weights_hash(self) -> str:
        """Hash of the encoder's weights."""
        return self.key.weights_hash

    @property
    def preprocessing_version(self) -> str:
        """Version and configuration of windowing and resampling."""
        return self.key.preprocessing_version

    @property
    def dtype(self) -> str:
        """How the embeddings are stored."""
        return self.key.dtype

    @property
    def encoding(self) -> Encoding:
        """What has to agree between patients for their embeddings to be comparable."""
        return self.key.encoding


def entry_to_json(entry: ManifestEntry) -> bytes:
    """Return one entry as it lies in its version folder."""
    return canonical_json(_plain(entry)).encode()


def entry_from_json(data: bytes) -> ManifestEntry:
    """Rebuild the result of `entry_to_json`."""
    return _entry(json.loads(data))


def manifest_to_json(entries: Mapping[str, ManifestEntry]) -> bytes:
    """Return the manifest file: equal entries give equal bytes, in whatever order they came."""
    plain = {patient: _plain(entry) for patient, entry in sorted(entries.items())}
    text = json.dumps({"format": FORMAT, "entries": plain}, sort_keys=True, indent=1, allow_nan=False)
    return f"{text}\n".encode()


def manifest_from_json(data: bytes | None) -> dict[str, ManifestEntry]:
    """Rebuild the entries; a missing file is an empty manifest.

    Raises
    ------
    StoreError : damaged, or written by a newer version
    """
    if data is None:
        return {}
    try:
        content = json.loads(data)
        if content["format"] != FORMAT:
            raise StoreError(
                f"the embedding store has format {content['format']}, this version reads format {FORMAT}: "
                "use the version that wrote it, or embed into a new folder"
            )
        return {patient: _entry(values) for patient, values in content["entries"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the embedding store's manifest is damaged ({type(error).__name__}): restore it from a backup, "
            "or remove the store and embed again"
        ) from error


def manifest_version(entries: Mapping[str, ManifestEntry]) -> str:
    """Return the data version: the hash of the manifest's content."""
    return hashlib.sha256(manifest_to_json(entries)).hexdigest()


def _plain(entry: ManifestEntry) -> dict[str, Any]:
    return {**asdict(entry), "key": entry.key.plain()}


def _entry(values: dict[str, Any]) -> ManifestEntry:
    changed = {"key": EmbeddingKey(**values["key"]), "quality_histogram": tuple(values["quality_histogram"])}
    return ManifestEntry(**values | changed)
