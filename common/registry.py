"""Kinds of one thing, found by name: each is a class with its settings, in a file of its own.

::

    @PREDICTORS.register(GruSettings)        # in gru.py; GruSettings has kind: Literal["gru"] = "gru"
    class Gru(FittedPredictor): ...

    PREDICTORS["gru"]                        # the class
    Annotated[PredictorSettings, PREDICTORS] # a settings field that takes any kind, told apart by ``kind``

Who asks for a kind loads every module of the package first. So a new kind is one new file there, and no list is edited.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from sclmkb.common.config import Settings

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Mapping[str, type[T]]):
    """The classes of one thing by their kind; the modules of a package register themselves."""

    def __init__(self, package: str) -> None:
        self._package, self._loaded = package, False
        self._classes: dict[str, type[T]] = {}
        self._settings: dict[str, type[Settings]] = {}

    def register(self, settings: type[Settings]) -> Callable[[C], C]:
        """Return a decorator for the class that such settings build, whose field ``kind`` has the name as default.

        Raises:
            ValueError: if the kind is taken by another class.
        """
        kind = str(settings.model_fields["kind"].default)

        def keep(cls: C) -> C:
            if kind in self._classes and self._classes[kind].__qualname__ != cls.__qualname__:
                raise ValueError(f"kind '{kind}' is taken by {self._classes[kind].__qualname__}: choose another")
            self._classes[kind], self._settings[kind] = cls, settings
            return cls

        return keep

    def forget(self, kind: str) -> None:
        """Take a kind out again."""
        del self._classes[kind], self._settings[kind]

    def __getitem__(self, kind: str) -> type[T]:
        self._load()
        return self._classes[kind]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._classes)

    def __len__(self) -> int:
        self._load()
        return len(self._classes)

    def __hash__(self) -> int:
        return id(self)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Build the schema of a field that takes the settings of any kind."""
        self._load()
        union: Any = Union[tuple(self._settings[kind] for kind in sorted(self._settings))]  # noqa: UP007 (made of a list)
        return handler.generate_schema(Annotated[union, Field(discriminator="kind")])

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__, f"{self._package}."):
                importlib.import_module(module.name)
