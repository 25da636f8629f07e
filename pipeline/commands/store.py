"""``python -m pipeline store ls | verify | gc | forget``."""

import argparse
import sys
from collections.abc import Callable, Iterable

from pipeline.experiments import default_experiment_name, experiment
from pipeline.foundation.errors import StoreError
from pipeline.foundation.number_format import counted
from pipeline.foundation.workspace import Workspace
from pipeline.store.admin import (
    forget_patient,
    gc_store,
    list_store,
    repair_store,
    verify_store,
)
from pipeline.store.embeddings import EmbeddingStore

Command = Callable[[EmbeddingStore, argparse.Namespace], Iterable[str]]


def add_store_commands(commands) -> None:
    """Add ``store`` and its sub-commands to the command line."""
    store = commands.add_parser("store", help="look at the embedding store and keep it in order")
    kinds = store.add_subparsers(required=True, metavar="command")
    _add(kinds, "ls", "patients, windows, encoders, size", _ls)
    verify = _add(kinds, "verify", "read everything and compare it with the manifest", _verify)
    verify.add_argument(
        "--repair", action="store_true", help="take out what is damaged; the next embed run makes it anew"
    )
    gc = _add(kinds, "gc", "remove versions that nothing names", _gc)
    gc.add_argument("--older-than-hours", type=float, default=24.0)
    gc.add_argument("--dry-run", action="store_true")
    forget = _add(kinds, "forget", "remove one patient entirely", _forget)
    forget.add_argument(
        "patient", nargs="?", help="patient id as in the catalogue; read from standard input when absent"
    )


def _add(kinds, name: str, help_text: str, command: Command) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=help_text)
    parser.add_argument("--store", help="folder or URL of the store; the experiment's when absent")
    parser.add_argument("--experiment", help="UNIPHY_EXPERIMENT, or as for the other commands")
    parser.add_argument("--artifacts", help="output folder; UNIPHY_ARTIFACTS, or ./artifacts")
    parser.set_defaults(run=lambda parsed: _run(command, parsed))
    return parser


def _run(command: Command, parsed: argparse.Namespace) -> None:
    name = experiment(parsed.experiment or default_experiment_name()).name
    where = parsed.store or Workspace.from_environment(name, artifacts=parsed.artifacts).store
    for line in command(EmbeddingStore.open(where), parsed):
        sys.stdout.write(f"{line}\n")


def _ls(store: EmbeddingStore, parsed: argparse.Namespace) -> Iterable[str]:
    listing = list_store(store)
    yield f"patients  {listing.patients}  (and {listing.retired} retired)"
    yield f"windows   {listing.windows}  ({listing.hours:.1f} h)"
    yield f"size      {listing.bytes_referenced / 1e6:.1f} MB"
    yield f"version   {listing.data_version}"
    for encoding, patients in sorted(listing.encodings.items()):
        yield f"encoder   {encoding}: {counted(patients, 'patients')}"
    for reason, count in sorted(listing.exclusions.items()):
        yield f"dropped   {count:>8}  {reason}"
    for licence in listing.licences:
        yield f"licence   {licence}"


def _verify(store: EmbeddingStore, parsed: argparse.Namespace) -> Iterable[str]:
    report = verify_store(store)
    yield f"{counted(report.checked, 'patients')} read, {len(report.damaged)} damaged"
    yield from (f"  {patient}: {problem}" for patient, problem in sorted(report.damaged.items()))
    if report.ok:
        return
    if not parsed.repair:
        raise StoreError(
            "the store is damaged: take the patients above out with store verify --repair and run the embed stage "
            "again, or restore the store from a backup"
        )
    taken, kept = repair_store(store, report)
    yield f"{counted(taken, 'patients')} taken out: run the embed stage again"
    if kept:
        raise StoreError(
            f"{counted(kept, 'damaged patients')} without a waveform, which could not be embedded again, stay: restore "
            "them from a backup, or remove them with store forget"
        )


def _gc(store: EmbeddingStore, parsed: argparse.Namespace) -> Iterable[str]:
    report = gc_store(store, older_than_hours=parsed.older_than_hours, dry_run=parsed.dry_run)
    verb = "would remove" if report.dry_run else "removed"
    yield f"{verb} {counted(report.versions, 'versions')} and {counted(report.staging_folders, 'staging folders')}"


def _forget(store: EmbeddingStore, parsed: argparse.Namespace) -> Iterable[str]:
    elsewhere = forget_patient(store, parsed.patient or sys.stdin.readline().strip())
    yield "The patient is gone from the store. The patient may also be in:"
    yield from (f"  {place}" for place in elsewhere)
