"""Embeddings on disk or in a bucket, whole or not at all.

In: a patient's embeddings, start times and quality under the key of what made them.
Out: the last commit, whole, or the one before it.
Never: a patient id in a name; bytes that a killed writer left.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "admin": ["forget_patient", "gc_store", "list_store", "repair_store", "verify_store"],
        "embeddings": ["EmbeddingStore", "MANIFEST"],
        "manifest": ["EmbeddingKey", "Encoding", "ManifestEntry"],
        "zarr_version": ["PatientWriter", "QUALITY_BINS"],
    },
)
