"""Classes that are found by the name of the module that defines them."""

import inspect
from importlib import import_module
from typing import TypeVar

Class = TypeVar("Class")


def find_only_class(module_name: str, base: type[Class]) -> type[Class]:
    """Import a module, and return the only subclass of ``base`` that it defines."""
    module = import_module(module_name)
    (found,) = (
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base) and member.__module__ == module_name
    )
    return found
