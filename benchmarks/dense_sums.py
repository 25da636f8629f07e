"""Time and memory of dense scoring's sums, and of the judgement made of them, on planted sequences.

``python -m benchmarks.dense_sums --points 20_000_000`` streams planted blocks, a lab of a seven-day sequence each, and
prints seconds and peak resident memory in a process of its own, once for a tenth of the points and once for all:
memory must not grow with points. "made" is the planting of the blocks, in no total of ours. With ``--patients`` the
sums of so many patients and all methods are judged with 1000 replicates.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipeline.cohort.dense_sums import DenseBlock, DenseSums
from pipeline.cohort.summed_set import dense_sets
from pipeline.evaluation.judge import EvaluationConfig, comparison_of, evaluation_of, judge_sets
from pipeline.foundation.schema import LAB_NAMES, MAX_SEQUENCE_STEPS, METHODS, PROTOCOLS, WINDOW_US

POINTS_A_LAB = 14_789
"""Of a seven-day sequence: 73,944 points of five labs."""


def planted(
    points: int, methods: tuple[str, ...], protocols: tuple[str, ...] = ("start",)
) -> Iterator[DenseBlock]:
    """Yield sequences lab by lab until `points` are there; truths wander, estimates err."""
    rng = np.random.default_rng(0)
    time_us = np.arange(MAX_SEQUENCE_STEPS, dtype=np.int64) * WINDOW_US
    made = 0
    while made < points:
        patient = f"{made:09d}"
        for protocol in protocols:
            for lab in LAB_NAMES:
                n = min(POINTS_A_LAB, max(points - made, 1))
                truth = 4 + rng.normal() + rng.normal(0, 0.01, n).cumsum()
                yield DenseBlock(
                    patient=patient, split="test", protocol=protocol, lab=lab, sampled_at_us=time_us[:n], truth=truth,
                    estimates={method: truth + rng.normal(0, 0.3, n) for method in methods},
                )  # fmt: skip
                made += n


def measure_stream(points: int, n_methods: int) -> None:
    """Print one row: points, seconds of the sums alone, peak memory."""
    sums, seconds, began = DenseSums(seed=0), 0.0, time.perf_counter()
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for block in planted(points, METHODS[:n_methods]):
        start = time.perf_counter()
        sums.add(block)
        seconds += time.perf_counter() - start
    table = sums.table()
    made = time.perf_counter() - began - seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{int(table.loc[table['method'] == METHODS[0], 'n_points'].sum()):>12,} points x {n_methods} methods: sums "
        f"{seconds:7.2f} s, made {made:7.2f} s, peak {peak:6.0f} MB ({base:.0f} MB before the first block)"
    )


def measure_judge(patients: int) -> None:
    """Print seconds and memory of evaluation and one comparison, all methods, three seeds."""
    rng = np.random.default_rng(0)
    names = [f"{number:06d}" for number in range(patients)]
    frames = [
        pd.DataFrame({
            "method": method, "protocol": protocol, "seed": seed, "split": "test", "patient": names, "lab": lab,
            "n_points": POINTS_A_LAB, "absolute_error": rng.gamma(9.0, 500.0, patients),
            "signed_error": rng.normal(0, 500, patients), "squared_error": rng.gamma(9.0, 200.0, patients),
            "truth_mean": 4.0 + np.arange(patients) / patients, "truth_spread": 1000.0, "points_digest": "0" * 32,
        })
        for method in METHODS for protocol in PROTOCOLS for seed in (0, 1, 2) for lab in LAB_NAMES
    ]  # fmt: skip
    began, config = time.perf_counter(), EvaluationConfig()
    judged = judge_sets(dense_sets(pd.concat(frames, ignore_index=True)), config)
    evaluation_of(judged, config)
    comparison_of(judged, "mt_pcs", "mt_pcs_twin", config)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"judged {len(frames)} method-lab-seeds of {patients:,} patients: {time.perf_counter() - began:.1f} s, "
        f"peak {peak:.0f} MB"
    )


def main() -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20_000_000)
    parser.add_argument("--methods", type=int, default=1, help="methods estimated in one stream")
    parser.add_argument("--patients", type=int, default=0, help="judge the sums of so many patients, too")
    parser.add_argument("--alone", action="store_true", help="measure in this process")
    options = parser.parse_args()
    if options.alone:
        measure_stream(options.points, options.methods)
        return
    for points in (options.points // 10, options.points):
        subprocess.run(
            [sys.executable, "-m", "benchmarks.dense_sums", "--alone", "--points", str(points), "--methods",
             str(options.methods)], check=True,
        )  # fmt: skip
    if options.patients:
        measure_judge(options.patients)


if __name__ == "__main__":
    main()
