"""Things of one kind by name: each module of a package adds its own, so that a new one is a new file and no more."""

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Generic, TypeVar

from sclmkb.common.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """What the modules of a package add, by name; they are imported at the first question.

    Attributes:
        known: what was added until now.
    """

    def __init__(self, package: str, what: str) -> None:
        """Begin without an entry.

        Args:
            package: the package whose modules add to it.
            what: what one entry is, for messages.
        """
        self.known: dict[str, T] = {}
        self._package, self._what, self._complete = package, what, False

    def add(self, name: str, thing: T) -> None:
        """Add something; another thing of the same name is replaced."""
        self.known[name] = thing

    def all(self) -> Mapping[str, T]:
        """Return everything by name, in the order of the names."""
        if not self._complete:
            self._complete = True
            for module in pkgutil.iter_modules(import_module(self._package).__path__):
                import_module(f"{self._package}.{module.name}")
        return dict(sorted(self.known.items()))

    def __getitem__(self, name: str) -> T:
        found = self.all()
        if name not in found:
            raise UserError(f"there is no {self._what} '{name}': choose one of {', '.join(found)}")
        return found[name]
