"""``python -m benchmarks NAME ...``: measure, print the tables, append the rows to results/NAME.csv."""

import argparse
import importlib
from functools import partial

from benchmarks import memory
from benchmarks.driver import run_case, save, table

REGISTRY = {name: f"benchmarks.{name}" for name in ("assimilation", "encoder", "selective_scan", "training")}
"""Name of a benchmark -> module with a list CASES of benchmarks.driver.Case."""


def main() -> None:
    """Run registered benchmarks, one after another, on the machine as it is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", choices=sorted(REGISTRY), nargs="+", metavar="NAME", help=", ".join(sorted(REGISTRY))
    )
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds; slow peers take fewer")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    for name in dict.fromkeys(options.names):
        module = REGISTRY[name]
        for case in importlib.import_module(module).CASES:
            if options.only in case.name:
                measured = run_case(case, options.rounds, partial(memory.peak_of, module))
                print(table(measured), flush=True)
                if not options.no_save:  # case by case: a long run that is stopped keeps what it has
                    save(name, measured)


if __name__ == "__main__":
    main()
