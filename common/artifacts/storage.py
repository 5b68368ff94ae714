"""Object storage: paths like ``s3://bucket/run`` for every store that fsspec reaches.

An object is put whole or not at all. Nothing is renamed. Nothing is concluded from a listing: an object is always
asked for by its name. Calls that fail are repeated (:mod:`~sclmkb.common.artifacts.object_calls`);
:mod:`sclmkb.common.artifacts.files` offers the same functions for these paths and for local ones.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PosixPath
from typing import Any, NoReturn, Self, TypeVar

from sclmkb.common.artifacts.object_calls import THREADS, call, knows_no_conditions
from sclmkb.common.errors import UserError

_T = TypeVar("_T")
_R = TypeVar("_R")


class ObjectPath(PosixPath):
    """A place in object storage, put together like any other path.

    It is a :class:`~pathlib.Path` so that it goes wherever folders of artifacts go. What asks the operating system for
    it, instead of this class or :mod:`sclmkb.common.artifacts.files`, is refused in one line.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        self._refuse()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether there is an object of this name; a common beginning of names is none."""
        try:
            return bool(call(self, lambda fs, url: fs.info(url)["type"] == "file"))
        except FileNotFoundError:
            return False

    def read_bytes(self) -> bytes:
        """Return what the object holds.

        Raises:
            FileNotFoundError: if there is none.
        """
        return bytes(call(self, lambda fs, url: fs.cat_file(url)))

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """Return what the object holds, as text.

        Raises:
            FileNotFoundError: if there is none.
        """
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        """Put an object, whatever has been there; the last writer wins."""
        call(self, lambda fs, url: fs.pipe_file(url, bytes(data)))
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        try:
            call(self, lambda fs, url: fs.rm_file(url))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def absolute(self) -> Self:
        """Return the path, which is absolute already."""
        return self

    def resolve(self, strict: bool = False) -> Self:
        """Return the path, which has no links in it."""
        return self

    def iterdir(self) -> Generator[Self, None, None]:
        """Refuse: a listing may be late."""
        self._refuse()

    def glob(self, *args: Any, **kwargs: Any) -> Generator[Self, None, None]:
        """Refuse: a listing may be late."""
        self._refuse()

    def rglob(self, *args: Any, **kwargs: Any) -> Generator[Self, None, None]:
        """Refuse: a listing may be late."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(f"{self} is in object storage, and this needs a local folder: copy it to one, and name that")


def parse_folder(text: str) -> Path:
    """Return the folder that an option names: a local path, or a URL such as ``s3://bucket/run``.

    Raises:
        UserError: if it is a URL of a kind that is unknown.
    """
    protocol, separator, _ = text.partition("://")
    if not separator:
        return Path(text)
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    if protocol in ("file", "local"):
        return Path(LocalFileSystem._strip_protocol(text))
    if protocol not in fsspec.available_protocols():
        raise UserError(f"'{text}': nothing is known of {protocol}://, write s3://BUCKET/NAME or gs://BUCKET/NAME")
    return ObjectPath(text)


def parse_local(text: str) -> Path:
    """Return the local path that an option names.

    Raises:
        UserError: if it is a URL.
    """
    path = parse_folder(text)
    if isinstance(path, ObjectPath):
        raise UserError(f"{path} is in object storage, and this option takes local paths only")
    return path


FOLDER: dict[str, Any] = {"parser": parse_folder, "metavar": "FOLDER|URL"}
"""Makes an option or argument of Typer take a folder or a URL: ``typer.Option("--out", **FOLDER)``."""
LOCAL: dict[str, Any] = {"parser": parse_local, "metavar": "PATH"}
"""Makes one refuse URLs, which would be taken for folders called ``s3:``."""


def put_new(path: ObjectPath, data: bytes) -> bool:
    """Put an object under a name that is still free; of several processes the first one wins.

    The object that is there afterwards decides, not the answer of the call: an answer may be lost, and stores refuse
    in different words. A store that knows no conditions is only asked before; see :func:`keeps_the_first`.

    Returns:
        Whether this call put it.

    Raises:
        UserError: if the bucket does not exist, or the store fails for good.
    """
    if _read_if_there(path) is not None:
        return False

    def attempt(fs: Any, url: str) -> bool:
        try:
            fs.pipe_file(url, data, mode="create")
        except Exception as error:
            if knows_no_conditions(error):
                fs.pipe_file(url, data)
            elif _read(fs, url) is None:
                raise
        return _read(fs, url) == data

    try:
        return call(path, attempt)
    except FileNotFoundError:
        raise _no_bucket(path) from None


def keeps_the_first(path: ObjectPath) -> bool:
    """Return whether the store refuses to put an object that is there; tried with what is there.

    Raises:
        FileNotFoundError: if there is none.
    """
    data = path.read_bytes()

    def attempt(fs: Any, url: str) -> bool:
        try:
            fs.pipe_file(url, data, mode="create")
        except Exception as error:
            return not knows_no_conditions(error)
        return False

    return call(path, attempt)


def put_file(local: Path, path: ObjectPath) -> None:
    """Put a local file, and make sure that all of it is there.

    Raises:
        UserError: if the bucket does not exist, or the store fails for good.
    """
    size = local.stat().st_size

    def attempt(fs: Any, url: str) -> None:
        fs.put_file(str(local), url)
        if (found := fs.info(url)["size"]) != size:
            raise OSError(f"put {size} bytes but {found} are there")

    try:
        call(path, attempt)
    except FileNotFoundError:
        raise _no_bucket(path) from None


def get_file(path: ObjectPath, local: Path) -> None:
    """Copy an object to a local file.

    Raises:
        FileNotFoundError: if there is none.
    """
    call(path, lambda fs, url: fs.get_file(url, str(local)))


def remove_below(path: ObjectPath) -> None:
    """Delete what a listing shows below a name; what it does not show yet stays."""
    with contextlib.suppress(FileNotFoundError):
        call(path, lambda fs, url: fs.rm(url, recursive=True))


def listed(path: ObjectPath) -> list[ObjectPath]:
    """Return what a listing shows directly below a name, in order; it may be late."""
    try:
        names = call(path, lambda fs, url: fs.ls(url, detail=False))
    except FileNotFoundError:
        return []
    return [path / name for name in sorted(name.rstrip("/").rpartition("/")[2] for name in names)]


def put_at(path: ObjectPath) -> float:
    """Return when an object was put, by the clock of the store [s since 1970].

    Raises:
        FileNotFoundError: if there is none.
    """
    return float(call(path, lambda fs, url: fs.modified(url)).timestamp())


def check_bucket(path: ObjectPath) -> None:
    """Make sure that there is a bucket, to tell that apart from a missing object.

    Raises:
        UserError: if there is none.
    """
    bucket = ObjectPath(*path.parts[:2])
    if bucket.parts[0] == "memory:":
        return
    try:
        call(bucket, lambda fs, url: fs.info(url))
    except FileNotFoundError:
        raise _no_bucket(path) from None


def for_each(root: Path, function: Callable[[_T], _R], items: Iterable[_T]) -> Sequence[_R]:
    """Return what a function makes of each item; many at once if ``root`` is far away."""
    if not isinstance(root, ObjectPath):
        return [function(item) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def _read(fs: Any, url: str) -> bytes | None:
    try:
        return bytes(fs.cat_file(url))
    except FileNotFoundError:
        return None


def _read_if_there(path: ObjectPath) -> bytes | None:
    return call(path, _read)


def _no_bucket(path: ObjectPath) -> UserError:
    return UserError(
        f"{path}: there is no {'/'.join(str(path).split('/')[:3])}: make that bucket first, or name another"
    )
