"""``python -m benchmarks NAME ...``: measure, print the tables, append the rows to results/NAME.csv."""

import argparse
import importlib
import math
from functools import partial

import torch

from benchmarks import memory
from benchmarks.driver import CHANGED, LEAST_ROUNDS, UNKNOWN, commit_name, kept, run_case, save, table

REGISTRY = {name: f"benchmarks.{name}" for name in ("assimilation", "encoder", "selective_scan", "training")}
"""Name of a benchmark -> module with a list CASES of benchmarks.driver.Case."""

ENOUGH_ON_A_GPU = 1.0
"""Seconds of a case's rounds: calls there differ little, and a card is lent by the minute."""


def main() -> None:
    """Run registered benchmarks, one after another, on the machine as it is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", choices=sorted(REGISTRY), nargs="+", metavar="NAME", help=", ".join(sorted(REGISTRY))
    )
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds; slow peers take fewer")
    parser.add_argument(
        "--seconds", type=float, default=ENOUGH_ON_A_GPU if torch.cuda.is_available() else math.inf,
        help=f"no more rounds of a case after so many, from {LEAST_ROUNDS} rounds on; on a GPU {ENOUGH_ON_A_GPU:.0f}",
    )  # fmt: skip
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument(
        "--continue", action="store_true", dest="go_on",
        help="measure what results/ has no rows of by this machine, these versions and this commit; print all",
    )  # fmt: skip
    options = parser.parse_args()
    commit = commit_name()  # before the first case: what runs is what was there then
    if options.go_on and (commit == UNKNOWN or commit.endswith(CHANGED)):
        parser.error(
            f"--continue tells results apart by their commit, and this one is {commit!r}: commit what was changed; "
            "where there is no git, name the commit in BENCHMARK_COMMIT."
        )
    for name in dict.fromkeys(options.names):
        module, before = REGISTRY[name], kept(name) if options.go_on else {}
        peak_of = partial(memory.peak_of, module)
        for case in importlib.import_module(module).CASES:
            if options.only not in case.name:
                continue
            measured = before.get(case.name) or run_case(case, options.rounds, peak_of, options.seconds)
            print(table(measured), flush=True)
            if case.name not in before and not options.no_save:
                save(name, measured)  # case by case: a long run that is stopped keeps what it has


if __name__ == "__main__":
    main()
