"""What stage 1 does with a machine: defaults from cores and device, and the experiment's own numbers."""

import pytest

from models.encoders.base import EMBED_BATCH, GPU_EMBED_BATCH
from pipeline.embedding.config import GPU_BATCH_WINDOWS, EmbeddingConfig, available_cores
from pipeline.experiments import EXPERIMENTS, experiment
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import from_plain, to_plain
from pipeline.windows.cutting import WindowConfig

WINDOW = WindowConfig()


def test_two_cores_run_as_they_always_did() -> None:
    config = EmbeddingConfig().on("cpu", window=WINDOW, cores=2)
    assert (config.batch_windows, config.batch_patients, config.decode_workers) == (256, 32, 0)
    assert (config.queue_blocks, config.actors) == (4, 2)


def test_more_cores_decode_in_processes_and_take_larger_batches() -> None:
    config = EmbeddingConfig().on("cpu", window=WINDOW, cores=16)
    assert (config.batch_windows, config.decode_workers, config.actors) == (1024, 2, 16)
    assert config.batch_windows >= 16 * EMBED_BATCH, "each core has a batch of the encoder's"


def test_a_gpu_is_fed_by_all_cores_but_two() -> None:
    config = EmbeddingConfig().on("cuda", window=WINDOW, cores=16, gpus=2)
    assert (config.decode_workers, config.batch_windows, config.batch_patients) == (14, 4096, 256)
    assert config.queue_blocks * 512 >= 2 * config.batch_windows, "the next batch waits while one is embedded"
    assert config.actors == 2
    assert EmbeddingConfig().on("cuda", window=WINDOW, cores=1).decode_workers == 1
    small = EmbeddingConfig(gpu_batch_windows=512).on("cuda", window=WINDOW, cores=16)
    assert small.batch_windows == 512


def test_actors_share_the_cores() -> None:
    config = EmbeddingConfig().on("cuda", window=WINDOW, executor="ray", cores=16, gpus=4)
    assert (config.actors, config.decode_workers, config.executor) == (4, 2, "ray")
    assert config.batch_patients == 4 * 256, (
        "actors start anew for each batch: it must be minutes of work for each"
    )
    assert EmbeddingConfig().on("cpu", window=WINDOW, executor="ray", cores=16).decode_workers == 0


def test_what_the_experiment_says_stands() -> None:
    said = EmbeddingConfig(batch_windows=7, batch_patients=3, decode_workers=0, queue_blocks=2, actors=5)
    for device in ("cpu", "cuda"):
        config = said.on(device, window=WINDOW, cores=64)
        assert (config.batch_windows, config.batch_patients, config.decode_workers) == (7, 3, 0)
        assert (config.queue_blocks, config.actors) == (2, 5)


def test_the_gpu_batch_is_the_encoders() -> None:
    assert GPU_BATCH_WINDOWS == GPU_EMBED_BATCH
    assert available_cores() >= 1


@pytest.mark.parametrize(
    "wrong", [{"batch_windows": 0}, {"actors": 0}, {"decode_workers": -1}, {"gpu_batch_windows": 0}]
)
def test_impossible_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EmbeddingConfig(**wrong)


def test_overrides_by_path() -> None:
    overrides = {"embedding.decode_workers": "6", "embedding.device": "cpu", "embedding_executor": "ray"}
    config = experiment("demo", overrides)
    assert (config.embedding.decode_workers, config.embedding.device) == (6, "cpu")
    assert config.embedding_executor == "ray"
    for path, text in (("embedding.device", "tpu"), ("embedding.actors", "0"), ("embedding.batch", "1")):
        with pytest.raises(ConfigError, match=path.split(".")[1]):
            experiment("demo", {path: text})


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_checkpoints_of_before_these_fields_can_be_read(name: str) -> None:
    config = EXPERIMENTS[name]()
    old = {field: value for field, value in to_plain(config).items() if field != "embedding"}
    assert from_plain(type(config), old) == config
    assert from_plain(type(config), to_plain(config)) == config


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "cuda:12"])
def test_a_gpu_can_be_chosen_by_number(device: str) -> None:
    assert experiment("tiny", {"embedding.device": device}).embedding.device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "meta", ""])
def test_a_device_of_no_known_kind_is_refused_at_once(device: str) -> None:
    with pytest.raises(ConfigError, match="choose auto, cpu, cuda or cuda:N"):
        experiment("tiny", {"embedding.device": device})


def test_rays_actors_have_gpus_of_their_own() -> None:
    with pytest.raises(ConfigError, match=r"Ray gives each actor a GPU of its own"):
        experiment("tiny", {"embedding.device": "cuda:1", "embedding_executor": "ray"})
