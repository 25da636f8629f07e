"""Stage 1 end to end (read, window, resample, embed, store) against the encoder alone, in windows a second.

``python benchmarks/stage1_flow.py --encoder ppg_gpt_19m_random`` prints both rates, their ratio (target: 0.9 on two
cores), the ratio of processor seconds a window, which other programs disturb less, and the peak memory. The two are
measured by turns, as the product would run on this machine: on a GPU where there is one (there with more windows, as
``--patients 32 --windows 20160 --precision auto``; targets: 40,000 windows a second end to end for 1M, ratio 0.8 for
19M).
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from anywhere, installed or not

from models.encoders.base import device_kind
from pipeline.embedding.config import EmbeddingConfig
from pipeline.embedding.encoders import make_encoder
from pipeline.embedding.run import embed
from pipeline.sources.array_folder import ArrayFolder
from pipeline.store.embeddings import EmbeddingStore
from pipeline.windows.cutting import WindowConfig

RATE_HZ = 125


def write_records(folder: Path, n_patients: int, windows: int) -> ArrayFolder:
    """Write one pulse-like record a patient at 125 Hz."""
    for number in range(n_patients):
        rng = np.random.default_rng(number)
        seconds = np.arange(windows * 30 * RATE_HZ) / RATE_HZ
        wave = np.sin(2 * np.pi * (1.0 + 0.1 * number) * seconds) + rng.normal(0, 0.1, len(seconds))
        np.save(folder / f"{number}.npy", wave.astype(np.float32))
        about = {"patient_id": str(number), "start": "2111-05-02T10:00:00", "sampling_rate_hz": RATE_HZ}
        (folder / f"{number}.json").write_text(json.dumps(about))
    return ArrayFolder(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="ppg_gpt_19m_random")
    parser.add_argument("--patients", type=int, default=3)
    parser.add_argument("--windows", type=int, default=512, help="of each patient")
    parser.add_argument("--decode-workers", type=int, help="none: as the product chooses for this machine")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    encoder = make_encoder(arguments.encoder, precision=arguments.precision)
    how = EmbeddingConfig(decode_workers=arguments.decode_workers)
    config = how.on(device_kind(encoder), window=WindowConfig())
    batch = torch.rand(config.batch_windows, encoder.samples_per_window)
    total = arguments.patients * arguments.windows
    rates: list[tuple[float, float]] = []
    processor: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "waveforms").mkdir()
        source = write_records(Path(name, "waveforms"), arguments.patients, arguments.windows)
        encoder.embed(batch)
        for turn in range(arguments.turns):
            began, used = time.perf_counter(), time.process_time()
            rounds = max(1, total // len(batch))
            for _ in range(rounds):
                encoder.embed(batch).cpu()
            done = rounds * len(batch)
            alone, alone_used = done / (time.perf_counter() - began), (time.process_time() - used) / done
            used = time.process_time()
            store = EmbeddingStore.open(Path(name, f"store{turn}"), create=True)
            rates.append((alone, total / embed(source, store, encoder, config).seconds))
            processor.append(alone_used / ((time.process_time() - used) / total))
    alone, flow = np.median(rates, axis=0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(
        f"{arguments.encoder}: alone {alone:.0f} windows/s, end to end {flow:.0f} windows/s, "
        f"ratio {np.median([b / a for a, b in rates]):.2f}, by processor time {np.median(processor):.2f}, "
        f"peak {memory:.2f} GiB\n"
    )


if __name__ == "__main__":
    main()
