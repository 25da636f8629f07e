"""``python -m pipeline emulator``, ``emulator-check``, ``rehearse``: the whole job at true size on planted patients."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from pipeline.commands.project_options import configuration
from pipeline.emulation.model import emulator_folder
from pipeline.experiments import EXPERIMENTS, ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.atomic import require_writable
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.workspace import Workspace
from pipeline.stages import check_devices


def add_rehearsal_commands(commands) -> None:
    """Add the sub-commands."""
    emulator = commands.add_parser(
        "emulator", help="fit what draws an encoder's embeddings from planted physiology, and compare it"
    )
    _add_common(emulator)
    emulator.add_argument("--patients", type=int, default=1500, help="planted patients it is fitted on")
    emulator.add_argument("--check-patients", type=int, default=400, help="others, on whom it is compared")
    emulator.set_defaults(run=_emulator)
    _add_check(commands)
    rehearse = commands.add_parser(
        "rehearse", help="run every stage at true size on emulated embeddings; time, memory, bytes; resumable"
    )
    _add_common(rehearse)
    rehearse.add_argument("--patients", type=int, default=24)
    rehearse.add_argument("--days", type=float, default=1.0, help="recorded days of each, at most 7")
    rehearse.add_argument(
        "--sample-steps", type=int, default=200_000, help="of training and scoring; at most 2e6"
    )
    rehearse.add_argument("--records", type=int, default=20, help="generated WFDB records; 0 for none")
    rehearse.add_argument("--files", type=int, default=40, help="files of each")
    rehearse.add_argument("--seed", type=int, default=0)
    rehearse.add_argument(
        "--clean", action="store_true", help="remove this rehearsal's folder and do nothing else"
    )
    rehearse.set_defaults(run=_rehearse)


def _add_check(commands) -> None:
    check = commands.add_parser(
        "emulator-check",
        help="R2 of fitted lines or MT+PCS on emulated against rendered embeddings of one cohort; resumable",
    )
    _add_common(check, experiment="recovery")
    check.add_argument("--patients", type=int, default=160, help="planted patients, divided by the split")
    check.add_argument("--hours", type=float, nargs=2, default=(4.0, 8.0), metavar=("LOW", "HIGH"))
    check.add_argument("--seed", type=int, default=7, help="of the cohort; 7 or 8 to choose by")
    check.add_argument("--recipe", default="lines", help="lines (closed form), or mt_pcs (the experiment's)")
    check.add_argument("--divisions", type=int, default=5, help="into training and test patients")
    check.add_argument("--draws", type=int, default=2, help="of the emulator")
    check.set_defaults(run=_check)


def _add_common(command: argparse.ArgumentParser, *, experiment: str = "default") -> None:
    command.add_argument("--experiment", choices=EXPERIMENTS, default=experiment)
    command.add_argument("--artifacts", help="output folder; UNIPHY_ARTIFACTS, or ./artifacts")
    command.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes that write"
    )
    command.add_argument(
        "--emulator", type=Path, help="folder of the emulator; artifacts/emulators/<encoder>"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override, repeatable"
    )


def _project(parsed: argparse.Namespace) -> tuple[ExperimentConfig, Path, Path]:
    """Return the experiment, the folder of all artefacts and the emulator's."""
    config = configuration(parsed)
    base = Workspace.from_environment(config.name, artifacts=parsed.artifacts).root.parent
    return config, base, parsed.emulator or emulator_folder(base, config.encoder)


def _emulator(parsed: argparse.Namespace) -> None:
    from dataclasses import replace

    from pipeline.emulation.check import CHECK_BURSTS, compare_readouts, readout_table
    from pipeline.emulation.cohort import EMULATED_LICENCE
    from pipeline.emulation.fit import EmulatorFitConfig, emulator_key, fit_emulator
    from pipeline.emulation.model import TENSORS_FILE
    from pipeline.emulation.rendered import BurstPlan, render_windows
    from pipeline.stages.embed import experiment_encoder

    config, _, folder = _project(parsed)
    try:
        plan = BurstPlan(patients=parsed.patients)
        other = replace(CHECK_BURSTS, patients=parsed.check_patients)
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    require_writable(folder / TENSORS_FILE)
    encoder = experiment_encoder(config)
    key = emulator_key(encoder, config.window)
    windows = render_windows(encoder, plan, window=config.window, workers=parsed.workers)
    emulator = fit_emulator(windows, key)
    unseen = render_windows(encoder, other, window=config.window, workers=parsed.workers)
    rows = compare_readouts(unseen, emulator)
    fitted_on = {"patients": plan.patients, "windows": len(windows), "hours": plan.hours, "seed": plan.seed}
    how = {"on": fitted_on, "how": vars(EmulatorFitConfig())}
    with noted(ArtefactNote.of("emulator", config=how, inputs=vars(key), licences=[EMULATED_LICENCE])):
        emulator.save(folder, how | {"readouts": [vars(row) for row in rows]})
    sys.stdout.write(f"{readout_table(rows)}\nemulator: {folder}\n")


def _check(parsed: argparse.Namespace) -> None:
    from pipeline.stages.emulation_check import (
        EmulationCheck,
        run_emulation_check,
    )  # imports torch, as others
    from pipeline.stages.scale_study import ScaleStudy

    config, base, folder = _project(parsed)
    try:
        study = ScaleStudy(
            encoders=(config.encoder,), patients=parsed.patients, hours=tuple(parsed.hours), seed=parsed.seed,
            recipe=parsed.recipe,
        )  # fmt: skip
        check = EmulationCheck(study=study, divisions=parsed.divisions, draws=parsed.draws)
    except ValueError as problem:
        raise ConfigError(f"emulator-check: {problem}") from None
    fit = _fitting_command(parsed)
    sys.stdout.write(run_emulation_check(config, base / "emulator_check", check, folder, fit=fit))


def _rehearse(parsed: argparse.Namespace) -> None:
    from pipeline.rehearsal.plan import Rehearsal, RehearsalSize
    from pipeline.rehearsal.run import other_sizes, rehearse
    from pipeline.rehearsal.table import growth_table, rehearsal_table

    config, base, emulator = _project(parsed)
    names = ("patients", "days", "sample_steps", "records", "files", "seed")
    try:
        size = RehearsalSize(**{name: getattr(parsed, name) for name in names})
    except ValueError as problem:
        raise ConfigError(f"rehearse: {problem}") from None
    rehearsal = Rehearsal(
        experiment=config, size=size, base=base, emulator=emulator, workers=max(1, parsed.workers)
    )
    if parsed.clean:
        removed = rehearsal.clean()
        sys.stdout.write(f"{'removed' if removed else 'nothing there:'} {rehearsal.root}\n")
        return
    check_devices(config)
    _check_encoder(config, emulator, _fitting_command(parsed))
    require_writable(rehearsal.root.parent / ".writable")
    rows = list(rehearse(rehearsal))
    sys.stdout.write(
        f"{rehearsal_table(rows)}\n\n{growth_table(size.patients, rows, other_sizes(rehearsal))}\n"
    )


def _fitting_command(parsed: argparse.Namespace) -> str:
    """Return the command that fits the emulator which a rehearsal with these arguments looks for."""
    words = ["--experiment", parsed.experiment]
    for option in ("artifacts", "emulator"):
        if getattr(parsed, option):
            words += [f"--{option}", str(getattr(parsed, option))]
    words += [word for item in parsed.set for word in ("--set", item)]
    return shlex.join(["python", "-m", "pipeline", "emulator", *words])


def _check_encoder(config: ExperimentConfig, folder: Path, fit: str) -> None:
    """Refuse an emulator of another encoder before anything is written."""
    from pipeline.emulation.fit import emulator_key
    from pipeline.emulation.model import Emulator
    from pipeline.stages.embed import experiment_encoder

    emulator_key_wanted = emulator_key(experiment_encoder(config), config.window)
    Emulator.load(folder, emulator_key_wanted, fit=fit)
