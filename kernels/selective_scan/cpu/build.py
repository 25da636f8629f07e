"""Build the CPU kernels with the system's C++ compiler at first use, and keep the result by source hash."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import torch

from ..user_cache import cache_directory

logger = logging.getLogger(__name__)

CHUNK = 32
"""Steps between two saved states (our decision: 16, 32 and 64 measured; see the benchmark)."""

LEVELS = {
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "avx2": ("-march=x86-64-v3",),
    "plain": (),
}
"""Builds by what they need of the CPU, with the compiler's flags."""

COMPILERS = ("c++", "g++", "clang++")
REMEDY = (
    "install a C++17 compiler (for example `apt install g++`), or name one in the environment variable CXX"
)

_libraries: dict[str, ctypes.CDLL | str] = {}
_lock = threading.Lock()


class BuildError(RuntimeError):
    """The CPU kernels could not be built on this machine; the message says what to do."""


def load_library(level: str | None = None) -> ctypes.CDLL:
    """Return the kernels built for `level` (by default the best this CPU has), building them if need be.

    Raises
    ------
    BuildError
        When there is no compiler or it fails; said again, without a second try, by every later call.
    """
    level = level or best_level()
    with _lock:
        if level not in _libraries:
            try:
                _libraries[level] = _open(_build(level))
            except BuildError as error:
                _libraries[level] = str(error)
    library = _libraries[level]
    if isinstance(library, str):
        raise BuildError(library)
    return library


def best_level() -> str:
    """Return the best of LEVELS that this CPU runs, as PyTorch sees it (ATEN_CPU_CAPABILITY limits both)."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "plain"
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return next((level for level in ("avx512", "avx2") if capability.startswith(level)), "plain")


def _build(level: str) -> Path:
    sources = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".cpp", ".h"))
    flags = ("-std=gnu++17", "-O3", "-fPIC", "-shared", "-pthread", "-w", f"-DCHUNK={CHUNK}", *LEVELS[level])
    return built("selective_scan", level, sources, flags)


def built(kernel: str, level: str, sources: list[Path], flags: tuple[str, ...]) -> Path:
    """Return the library of a kernel, from the user's folder where these sources and flags were built before.

    Parameters
    ----------
    kernel : folder of the kernel, which names the library
    level : one of `LEVELS`, whose flags are among `flags`
    sources : everything that the library is made of; the ``.cpp`` files are compiled

    Raises
    ------
    BuildError : there is no compiler, or it fails
    """
    digest = hashlib.sha256("\0".join((platform.machine(), *flags)).encode())
    for source in sources:
        digest.update(source.read_bytes())
    name = f"{kernel}-{level}-{digest.hexdigest()[:20]}.so"
    try:
        directory = cache_directory()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = directory / name
        if target.exists():
            return target
        probe = tempfile.NamedTemporaryFile(dir=directory, suffix=".so", delete=False)  # noqa: SIM115
    except (OSError, RuntimeError):  # no home, or a read-only one: build for this process alone
        target = Path(tempfile.mkdtemp()) / name
        probe = tempfile.NamedTemporaryFile(dir=target.parent, suffix=".so", delete=False)  # noqa: SIM115
    probe.close()
    try:
        compiled = [str(source) for source in sources if source.suffix == ".cpp"]
        _compile(compiled, flags, probe.name, f"{level} {kernel.replace('_', ' ')}")
        os.replace(probe.name, target)  # atomic: a second process sees a whole library or none
    finally:
        Path(probe.name).unlink(missing_ok=True)
    return target


def _compile(sources: list[str], flags: tuple[str, ...], output: str, called: str) -> None:
    compiler = named_compiler()
    if compiler is None:
        raise BuildError(f"no C++ compiler was found; {REMEDY}")
    logger.info("building the %s kernels, once for this machine", called)
    command = [compiler, *flags, *sources, "-o", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{compiler} failed to build the kernels; {REMEDY}. It said: {done.stderr[-2000:]}")


def named_compiler() -> str | None:
    """Return the C++ compiler that ``CXX`` names, or the first of `COMPILERS`; None where it is not there."""
    name = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    return name if name and shutil.which(name) else None


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"the built kernels cannot be loaded ({error}); {REMEDY}") from error
    for kernel in ("selective_scan", "convolution"):
        for direction in ("forward", "backward"):
            getattr(library, f"{kernel}_{direction}").argtypes = [ctypes.c_void_p]
    return library


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)  # a fork during a build must not leave the child waiting
