"""How a configuration names the device that computes; knows no torch, so that bad names are refused at once."""

import re

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
"""What may be written; whether the device is there shows where it is used."""
