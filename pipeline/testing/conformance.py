"""Which classes of the product fill a protocol, so that no conformance test can forget one.

A conformance test says which classes it runs; `forgotten` searches all of ``pipeline`` and ``models`` for others:
classes that modules define, private ones too, by the protocol's methods and the names of their parameters. One with
other names is not found: by numbers alone, protocols of one method are filled by half the house.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable
from functools import cache

from pipeline.testing.fake_ray import FakeRay

HOUSES = ("pipeline", "models")
EXCUSED = {
    "pipeline.pretraining.data._Shifted": "another source's stretches, later; the source within runs the suite",
    "pipeline.emulation.rendered._Bursts": "planned records of one function; its windows are tested there",
    "pipeline.embedding.ray_executor._Actor": "what RayExecutor, which runs the suite, starts on each actor",
    "pipeline.testing.fake_source.FakeSource": "stands in for a source in tests",
    "pipeline.testing.waveforms.FakeEncoder": "stands in for an encoder in tests",
}
"""Implementations that no conformance test runs, and why not."""


def forgotten(protocol: type, run: Iterable[type]) -> list[str]:
    """Return what a conformance test of `protocol` overlooks: implementations that are neither run nor excused.

    Those that are run but fill the protocol no more are named too, with a minus sign.
    """
    tested, found = set(map(qualified, run)), implementations(protocol)
    return [*sorted(found - tested - EXCUSED.keys()), *(f"-{name}" for name in sorted(tested - found))]


def implementations(protocol: type) -> set[str]:
    """Return the qualified names of the classes that have every method of a protocol.

    Attributes that are no methods do not count, since instances may set them, and a class that forgot one is to be
    found, not passed over. A protocol without methods is filled by a class that has, or declares, every attribute.
    """
    methods = _methods(protocol)
    fills = _has_methods if methods else _has_attributes
    return {qualified(kind) for kind in _classes() if fills(kind, protocol)}


def qualified(kind: type) -> str:
    """Return a class's module and name."""
    return f"{kind.__module__}.{kind.__qualname__}"


def protocols() -> dict[str, type]:
    """Return the public protocols of the product by qualified name."""
    return {
        qualified(kind): kind
        for kind in _every_class()
        if _is_protocol(kind) and not kind.__name__.startswith("_")
    }


def _classes() -> list[type]:
    return [kind for kind in _every_class() if not _is_protocol(kind)]


@cache
def _every_class() -> tuple[type, ...]:
    """Import every module of the product, with a stand-in for Ray, and return the classes that they define."""
    found: list[type] = []
    installed, stand_in = sys.modules.get("ray"), FakeRay(CPU=1.0)
    sys.modules["ray"] = stand_in
    try:
        for name in _modules():
            module = importlib.import_module(name)
            found += [it for it in vars(module).values() if inspect.isclass(it) and it.__module__ == name]
            if getattr(module, "ray", None) is stand_in:
                del sys.modules[name]  # whoever needs it next is to find what is installed
    finally:
        del sys.modules["ray"]
        if installed is not None:
            sys.modules["ray"] = installed
    return tuple(found)


def _modules() -> list[str]:
    names = []
    for house in HOUSES:
        root = importlib.import_module(house)
        names += [house, *(module.name for module in pkgutil.walk_packages(root.__path__, f"{house}."))]
    return names


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _methods(protocol: type) -> dict[str, list[str]]:
    """Return the names of the parameters of each public method."""
    return {
        name: list(inspect.signature(it).parameters)
        for name, it in vars(protocol).items()
        if inspect.isfunction(it) and not name.startswith("_")
    }


def _has_methods(kind: type, protocol: type) -> bool:
    for name, parameters in _methods(protocol).items():
        method = inspect.unwrap(inspect.getattr_static(kind, name, None))
        if not inspect.isfunction(method):
            return False
        if list(inspect.signature(method).parameters)[: len(parameters)] != parameters:
            return False
    return True


def _has_attributes(kind: type, protocol: type) -> bool:
    wanted = {
        name for name in [*vars(protocol), *inspect.get_annotations(protocol)] if not name.startswith("_")
    }
    declared = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    return all(name in declared or hasattr(kind, name) for name in wanted)
