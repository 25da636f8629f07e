"""Run the Triton kernels in the interpreter on small ragged cases; print each case's error, or null, as JSON."""

import json
from functools import partial

import torch

from kernels.selective_scan import selective_scan
from kernels.testing import ScanCase, assert_close, make_inputs, outputs_and_gradients, widen

CASES = {
    "ragged": ScanCase(batch=1, channels=5, length=19, state=3, mask=True),
    "pack_groups": ScanCase(batch=1, channels=6, state=2, groups=2, length=8, lengths=(5, 0, 3)),
    "bare": ScanCase(
        batch=2, channels=3, length=4, state=2, gate=False, skip=False, bias=False, initial=False
    ),
    "bf16": ScanCase(batch=1, channels=3, length=5, state=2, dtype=torch.bfloat16),
    "float64": ScanCase(batch=1, channels=3, length=5, state=2, dtype=torch.float64, channels_last=False),
}


def main():
    scan, report = partial(selective_scan, return_last_state=True), {}
    for name, case in CASES.items():
        truth = outputs_and_gradients(partial(scan, backend="reference"), widen(make_inputs(case)))
        ours = outputs_and_gradients(partial(scan, backend="triton"), make_inputs(case))
        try:
            assert_close(ours, truth, case.dtype)
        except AssertionError as error:
            report[name] = str(error)
        else:
            report[name] = None
    print(json.dumps(report))


if __name__ == "__main__":
    main()
