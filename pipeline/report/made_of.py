"""What made each method's estimates, in numbers: sentences, and the table of shares, for terminal and report."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.foundation.number_format import counted, number, short_label
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS
from pipeline.report.claims import RULE
from pipeline.report.document import Row, Section, Table, Words
from pipeline.report.inputs import ReportInputs
from pipeline.training.makeup import Makeup

SHOWN = ("network", "lines", "reading", "history")
NOTHING = 5e-4
"""A share that would be printed as 0.000."""
SILENT = "the network contributes nothing"
_NOTE = (
    "Shares of the estimates' variance over test draws; parts that work against the others count negative.\n"
    "network: what gradients trained (it may use history too); lines: fitted through the waveform; reading: of\n"
    "the latest windows; history: a line through earlier results or, in assimilation, the results themselves.\n"
)
_COUNTS = ("no", "one", "two", "three", "four", "five")


def made_of_sentence(makeup: Makeup, shares: pd.DataFrame | None = None) -> str:
    """Say which parts make a method's estimates, in numbers, and which share of their variance each part has.

    Parameters
    ----------
    makeup : the method's numbers, by part
    shares : ``training.shares.SHARE_COLUMNS`` of this method; None or empty: not known yet
    """
    numbers = makeup.numbers
    spread = _spread(shares)
    parts = []
    if "network" in numbers:
        parts.append(f"a network of {counted(numbers['network'], 'numbers')}{_share(spread, 'network')}")
    for name, words in (("lines", "through the waveform"), ("history", "through earlier results")):
        if name in numbers:
            lines = _lines(makeup, name)
            parts.append(f"{lines} {words}, {counted(numbers[name], 'numbers')}{_share(spread, name)}")
    if "reading" in numbers:
        reader = f"an LSTM that reads the latest windows, {counted(numbers['reading'], 'numbers')}"
        parts.append(reader + _share(spread, "reading"))
    if "filters" in numbers:
        each = numbers["filters"] // len(makeup.labs)
        filters = f"{_in_words(len(makeup.labs), 'Kalman filters')} of {counted(each, 'numbers')} each over all results"
        parts.append(filters + _share(spread, "history"))
    rest = [] if {"network", "reading"} & numbers.keys() else ["no network after the encoder"]
    if makeup.without_waveform:
        verb = "uses" if len(makeup.without_waveform) == 1 else "use"
        rest.append(f"{', '.join(makeup.without_waveform)} {verb} no waveform")
    rest += [
        f"of {lab} {100 * young:.0f} % (once it is old {100 * old:.0f} %) is the last result, carried forward"
        for lab, (young, old) in makeup.carried.items()
    ]
    if "network" in numbers and spread and max(map(abs, spread.get("network", (1.0,)))) < NOTHING:
        rest.append(f"{SILENT}: these are the estimates of the lines")
    return f"{short_label(makeup.method)}: {'; '.join([*parts, *rest])}."


def _lines(makeup: Makeup, part: str) -> str:
    """Count the fitted lines: a lab that uses no waveform has none through it."""
    n = len(makeup.labs) - (len(makeup.without_waveform) if part == "lines" else 0)
    return _in_words(n, "fitted lines")


def _in_words(n: int, things: str) -> str:
    """Say a number of things, a small number spelt out."""
    told = counted(n, things)
    return f"{_COUNTS[n]} {told.removeprefix(f'{n} ')}" if n < len(_COUNTS) else told


def _spread(shares: pd.DataFrame | None) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest share of each part over protocols and labs."""
    if shares is None or shares.empty:
        return {}
    names = [name for name in SHOWN if name in shares]
    known = shares[names].to_numpy(dtype=float)
    known = known[np.isfinite(known).all(axis=1)]
    if not len(known):
        return {}
    return {name: (float(known[:, i].min()), float(known[:, i].max())) for i, name in enumerate(names)}


def _share(spread: Mapping[str, tuple[float, float]], part: str) -> str:
    if part not in spread:
        return ""
    low, high = (round(100 * share) for share in spread[part])
    percent = f"{low} %" if low == high else f"{low} to {high} %"
    apart = "; beyond 0 to 100 % parts work against each other" if low < 0 or high > 100 else ""
    return f" ({percent} of the variance{apart})"


def patients_sentence(predictions: pd.DataFrame, split: str = "test") -> str:
    """Say how many patients and draws everything was tested on.

    Parameters
    ----------
    predictions : ``schema.PREDICTION_COLUMNS`` of measured draws
    """
    rows = predictions.loc[predictions["split"] == split]
    told = []
    for protocol in (name for name in PROTOCOLS if name in set(rows["protocol"])):
        draws = rows.loc[rows["protocol"] == protocol].drop_duplicates(["patient", "lab", "sampled_at"])
        told.append(f"{counted(len(draws), 'draws')} (protocol {protocol})")
    patients = rows["patient"].nunique()
    return f"Tested on {counted(patients, 'patients')} that no model has seen, {' and '.join(told)}."


def made_of_sentences(makeups: Sequence[Makeup], shares: pd.DataFrame | None) -> list[str]:
    """Say it of every method; `shares` with a column ``method``."""
    return [made_of_sentence(makeup, of_method(shares, makeup.method)) for makeup in makeups]


def headline_text(
    makeups: Sequence[Makeup], shares: pd.DataFrame, predictions: pd.DataFrame, *, split: str = "test"
) -> str:
    """Return what every table needs said under it: what made the estimates, on whom they were tested, and the rule."""
    return "\n".join([*made_of_sentences(makeups, shares), patients_sentence(predictions, split), RULE])


def of_method(shares: pd.DataFrame | None, method: str) -> pd.DataFrame | None:
    """Return one method's rows of the shares of all; None without any."""
    return None if shares is None or shares.empty else shares.loc[shares["method"] == method]


def made_of_table(shares: pd.DataFrame) -> str:
    """Return a line for each method, protocol and lab; nothing without shares.

    Parameters
    ----------
    shares : ``method`` and ``training.shares.SHARE_COLUMNS``
    """
    if shares.empty:
        return ""
    lines = ["What made the estimates", f"  {'':<14}{'':<10}{'':<10}" + "".join(f"{n:>9}" for n in SHOWN)]
    for method in dict.fromkeys(shares["method"]):
        for protocol in PROTOCOLS:
            mine = shares.loc[(shares["method"] == method) & (shares["protocol"] == protocol)]
            rows = sorted(mine.to_dict(orient="records"), key=lambda row: LAB_NAMES.index(row["lab"]))
            lines += [_line(short_label(method), protocol, row) for row in rows]
    return "\n".join([*lines, "", _NOTE])


def made_of_section(inputs: ReportInputs) -> Section | None:
    """Return the same for the report; None without shares."""
    shares = inputs.made_of
    if shares is None or shares.empty:
        return None
    body: list[Row] = []
    for method in dict.fromkeys(shares["method"]):
        body.append(Row(cells=[short_label(method)], kind="group"))
        for row in shares.loc[shares["method"] == method].to_dict(orient="records"):
            cells = [f"{row['lab']}, {row['protocol']}", *(number(row[name], 3) for name in SHOWN)]
            body.append(Row(cells=[*cells, verdict(row)]))
    sentences = [Words(text=sentence) for sentence in made_of_sentences(inputs.makeups, shares)]
    table = Table(columns=["", *SHOWN, ""], rows=body, folded="Shares by method, lab and protocol")
    note = Words(text=_NOTE.replace("\n", " ").strip(), kind="note")
    return Section(anchor="made-of", title="What made the estimates", blocks=[*sentences, table, note])


def verdict(row: dict) -> str:
    """Say in words what a reader must not overlook; "" where the numbers say it."""
    if pd.isna(row["network"]):
        return "every estimate is the same"
    return SILENT if abs(row["network"]) < NOTHING else ""


def _line(label: str, protocol: str, row: dict) -> str:
    cells = "".join(f"{number(row[name], 3):>9}" for name in SHOWN)
    return f"  {label:<14}{protocol:<10}{row['lab']:<10}{cells}  {verdict(row)}".rstrip()
