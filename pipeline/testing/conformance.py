"""Which classes of a package offer a protocol, so that a conformance test cannot forget one."""

import importlib
import inspect
import pkgutil


def implementations(package: str, protocol: type) -> set[type]:
    """Return the classes defined in a package, its subpackages included, that have every method of a protocol.

    Attributes that are no methods do not count: instances may set them, and a class that forgot one is to be found,
    not passed over.

    Parameters
    ----------
    package : dotted name; each of its modules is imported
    protocol : the protocol's class
    """
    methods = {
        name for name, it in vars(protocol).items() if inspect.isfunction(it) and not name.startswith("_")
    }
    root = importlib.import_module(package)
    names = [package, *(module.name for module in pkgutil.walk_packages(root.__path__, f"{package}."))]
    return {
        found
        for name in names
        for found in vars(importlib.import_module(name)).values()
        if inspect.isclass(found)
        and found.__module__ == name
        and not getattr(found, "_is_protocol", False)
        and all(callable(getattr(found, method, None)) for method in methods)
    }
