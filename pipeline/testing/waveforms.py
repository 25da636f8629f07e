"""An encoder that costs nothing, and what it left in the store, for tests of stage 1."""

from jaxtyping import Float
from torch import Tensor

from pipeline.embedding.config import EncodingConfig
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.fake_source import RATE_HZ

CONFIG = EncodingConfig(batch_windows=16, batch_patients=2)


class FakeEncoder:
    """A fixed projection of each window, exact in any order of summation; counts what it embeds."""

    sampling_rate_hz = RATE_HZ
    samples_per_window = 1200

    def __init__(self, name: str = "fake", width: int = 5, scale: float = 1.0) -> None:
        self.name, self.width, self.scale = name, width, scale
        self.windows = 0
        self.batches: list[int] = []

    @property
    def weights_hash(self) -> str:
        """Return a hash that changes with the scale."""
        return f"{self.scale:064.0f}"

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        """Return some samples of each window, scaled."""
        self.windows += len(windows)
        self.batches.append(len(windows))
        return self.scale * windows[:, :: 1200 // self.width][:, : self.width].contiguous()


def content(store: EmbeddingStore, patient: str) -> tuple[bytes, bytes, bytes]:
    """Return the bytes of a patient's embeddings, start times and quality."""
    read = store.read(patient)
    return read.embeddings[:].tobytes(), read.start_us.tobytes(), read.quality.tobytes()
