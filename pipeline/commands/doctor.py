"""``doctor``: what this machine has for the job, what it lacks, and what to install for it."""

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from pipeline.commands.parser import PACKAGE, version_text
from pipeline.foundation.memory import available_memory_bytes

LEAST_MEMORY_BYTES = 4 * 2**30
"""The demo's largest stage takes less than half of it (docs/rehearsal.md); below it, other programs are in the way."""
EXTRAS = {
    "triton": ("GPU kernels; the encoder's and the scan's", "cuda"),
    "mamba_ssm": ("a peer in benchmarks and tests", "cuda"),
    "ray": ("embedding on several machines", "ray"),
    "s3fs": ("embeddings in object storage", "s3"),
    "dagster_k8s": ("Kubernetes", "kubernetes"),
    "playwright": ("the browser test", "browser"),
}
"""Modules that are found if they are installed: what they are for, and the extra that holds them."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of what was found.

    Attributes
    ----------
    about, told : left and right column
    remedy : what to do where something is missing; None: nothing
    needed : whether nothing runs without it
    """

    about: str
    told: str
    remedy: str | None = None
    needed: bool = False


def add_doctor_command(commands) -> None:
    """Add the sub-command."""
    command = commands.add_parser(
        "doctor", help="say what this machine has for the job, and what to install where something is missing"
    )
    command.set_defaults(run=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    found = findings()
    sys.stdout.write(doctor_text(found))
    return 1 if any(finding.needed and finding.remedy for finding in found) else 0


def findings() -> list[Finding]:
    """Look at the machine; the kernels of the processor are built where they are not yet."""
    looks: tuple[Callable[[], list[Finding]], ...] = (
        _processor, _memory, _gpu, _compiler, _kernels, _encoders, _packages, _extras,
    )  # fmt: skip
    return [finding for look in looks for finding in look()]


def doctor_text(found: list[Finding]) -> str:
    """Return the findings as two columns, and what to do below them."""
    width = max(len(finding.about) for finding in found)
    lines = [version_text(), ""]
    said = ""
    for finding in found:
        about = "" if finding.about == said else finding.about
        said = finding.about
        lines.append(f"{about:<{width}}  {finding.told}")
    remedies = list(dict.fromkeys(finding.remedy for finding in found if finding.remedy))
    lines += ["", *([f"To do ({len(remedies)}):"] if remedies else ["Nothing is missing."])]
    return "\n".join([*lines, *(f"  {remedy}" for remedy in remedies)]) + "\n"


def _processor() -> list[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    vectors = torch.backends.cpu.get_cpu_capability()
    return [
        Finding(about="processor", told=f"{_processor_name()}, {cores} cores for this process, {vectors}")
    ]


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> list[Finding]:
    free = available_memory_bytes()
    few = None
    if free < LEAST_MEMORY_BYTES:
        few = f"Free some memory: {LEAST_MEMORY_BYTES / 2**30:.0f} GB are enough for the demo."
    return [Finding(about="memory", told=f"{free / 2**30:.1f} GB free", remedy=few)]


def _gpu() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return [Finding(about="GPU", told=f"{_card(card)}, CUDA {torch.version.cuda}") for card in cards]
    if shutil.which("nvidia-smi") is None:
        return [Finding(about="GPU", told="none; everything runs on the processor")]
    built = "a build without CUDA" if torch.version.cuda is None else f"a build for CUDA {torch.version.cuda}"
    return [
        Finding(
            about="GPU", told=f"there is one, and torch {torch.__version__} ({built}) does not see it",
            remedy="Install the build of torch for this machine's driver: https://pytorch.org/get-started/locally",
        )
    ]  # fmt: skip


def _card(card: Any) -> str:
    return f"{card.name}, {card.total_memory / 2**30:.0f} GB, sm_{card.major}{card.minor}"


def _compiler() -> list[Finding]:
    from kernels.selective_scan.cpu.build import named_compiler

    named, compiler = os.environ.get("CXX"), named_compiler()
    if compiler is None:
        told = f"CXX = {named}, which is not there" if named else "none"
        remedy = "Install a C++17 compiler (Debian, Ubuntu: apt install g++), or name one in CXX: without it scan and "
        return [
            Finding(about="compiler", told=told, remedy=f"{remedy}assimilation run several times slower.")
        ]
    found = shutil.which(compiler) or compiler
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return [Finding(about="compiler", told=f"{found}: {(done.stdout.splitlines() or ['?'])[0]}")]


def _kernels() -> list[Finding]:
    from kernels.kalman_scan import cpu as kalman
    from kernels.position_spread import cpu as spread
    from kernels.selective_scan.cpu import build as scan

    lines = []
    for name, build in (
        ("selective scan", scan.load_library), ("Kalman scan", kalman.library), ("encoder's spread", spread.library),
    ):  # fmt: skip
        try:
            build()
            lines.append(Finding(about="kernels", told=f"{name}: compiled for {scan.best_level()}"))
        except scan.BuildError as error:
            told = f"{name}: slow, in PyTorch ({str(error).splitlines()[0][:160]})"
            lines.append(
                Finding(about="kernels", told=told, remedy="Mend the compiler (above), and run doctor again.")
            )
    return [*lines, Finding(about="kernels", told=f"kept in {scan.cache_directory()}")]


def _encoders() -> list[Finding]:
    from models.encoders.ppg_gpt import PPGGPT
    from pipeline.embedding.encoders import make_encoder
    from pipeline.experiments import BEST_ENCODER
    from pipeline.foundation.errors import ProjectError

    try:
        encoder = make_encoder(BEST_ENCODER)
    except (ProjectError, OSError) as error:
        remedy = f"Install {PACKAGE} anew: its weights are missing or damaged."
        return [Finding(about="encoder", told=str(error).splitlines()[0][:160], remedy=remedy, needed=True)]
    parameters = (
        f"{sum(p.numel() for p in encoder.parameters()):,} parameters, "
        if isinstance(encoder, PPGGPT)
        else ""
    )
    return [Finding(about="encoder", told=f"{encoder.name}: {parameters}{encoder.width} numbers a window")]


def _packages() -> list[Finding]:
    """Compare what is installed with what the package asks for."""
    try:
        wanted = [Requirement(text) for text in requires(PACKAGE) or []]
    except PackageNotFoundError:
        remedy = "Install it: make setup, or pip install . -c requirements.lock"
        return [Finding(about="packages", told=f"{PACKAGE} itself is not installed", remedy=remedy)]
    told, wrong = [], []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            own = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        told.append(f"{requirement.name} {own}")
        if not requirement.specifier.contains(own, prereleases=True):
            wrong.append(f"{requirement.name} {own} is not {requirement.specifier}")
    remedy = "Install the packages anew: pip install . -c requirements.lock"
    return [
        *(Finding(about="packages", told=", ".join(told[at : at + 6])) for at in range(0, len(told), 6)),
        *(Finding(about="packages", told=problem, remedy=remedy, needed=True) for problem in wrong),
    ]


def _extras() -> list[Finding]:
    rows = []
    for module, (use, extra) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        how = "installed" if there else f"not installed; where it is wanted: pip install '.[{extra}]'"
        rows.append(Finding(about="extras", told=f"{module} ({use}): {how}"))
    return rows
