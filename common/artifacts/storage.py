"""Object storage: paths like ``s3://bucket/run`` for every store that fsspec reaches.

An object is put whole or not at all. Nothing is renamed, and nothing is concluded from a listing: whether an object is
there is asked for by its name. Calls that fail are repeated with growing pauses; :mod:`sclmkb.common.artifacts.files` offers the
same functions for these paths and for local ones.
"""

import contextlib
import errno
import random
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PosixPath
from typing import Any, NoReturn, Self, TypeVar

from sclmkb.common.console import say
from sclmkb.common.errors import UserError

ATTEMPTS = 8
FIRST_PAUSE_S = 0.5
"""Pause after the first failed call [s]; each one after that is twice as long: a minute in all."""
THREADS = 32

_OPTIONS: dict[str, dict[str, Any]] = {
    # One layer of retries, the one below. What a call may take is s3fs's own: 5 s to connect, 15 s without a byte.
    "s3": {"config_kwargs": {"retries": {"total_max_attempts": 1}, "max_pool_connections": THREADS}}
}
_EXTRAS = {"s3": "pip install 'sclmkb[s3]'", "gs": "pip install gcsfs", "abfs": "pip install adlfs"}

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
            return bool(_call(self, lambda fs, url: fs.info(url)["type"] == "file"))
        except FileNotFoundError:
            return False

    def read_bytes(self) -> bytes:
        """Return what the object holds.

        Raises:
            FileNotFoundError: if there is none.
        """
        return bytes(_call(self, lambda fs, url: fs.cat_file(url)))

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """Return what the object holds, as text.

        Raises:
            FileNotFoundError: if there is none.
        """
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        """Put an object, whatever has been there; the last writer wins."""
        _call(self, lambda fs, url: fs.pipe_file(url, bytes(data)))
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        try:
            _call(self, lambda fs, url: fs.rm_file(url))
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

    Whatever the call says, what is there afterwards decides: an answer may have been lost, and stores refuse in
    different words. A store that knows no conditions is only asked before; see :func:`keeps_the_first`.

    Returns:
        Whether this call put it.

    Raises:
        UserError: if the bucket does not exist, or the store fails for good.
    """
    if _read_if_there(path) is not None:
        return False

    def attempt(fs: Any, url: str) -> bool:
        try:
            _create(fs, url, data)
        except FileExistsError:
            pass
        except Exception:
            if _read(fs, url) is None:
                raise
        return _read(fs, url) == data

    try:
        return _call(path, attempt)
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
            return not _knows_no_conditions(error)
        return False

    return _call(path, attempt)


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
        _call(path, attempt)
    except FileNotFoundError:
        raise _no_bucket(path) from None


def get_file(path: ObjectPath, local: Path) -> None:
    """Copy an object to a local file.

    Raises:
        FileNotFoundError: if there is none.
    """
    _call(path, lambda fs, url: fs.get_file(url, str(local)))


def remove_below(path: ObjectPath) -> None:
    """Delete what a listing shows below a name; what it does not show yet stays."""
    with contextlib.suppress(FileNotFoundError):
        _call(path, lambda fs, url: fs.rm(url, recursive=True))


def listed(path: ObjectPath) -> list[ObjectPath]:
    """Return what a listing shows directly below a name, in order; it may be late."""
    try:
        names = _call(path, lambda fs, url: fs.ls(url, detail=False))
    except FileNotFoundError:
        return []
    return [path / name for name in sorted(name.rstrip("/").rpartition("/")[2] for name in names)]


def modified(path: ObjectPath) -> float:
    """Return when an object was put, by the clock of the store [s since 1970].

    Raises:
        FileNotFoundError: if there is none.
    """
    return float(_call(path, lambda fs, url: fs.modified(url)).timestamp())


def check_bucket(path: ObjectPath) -> None:
    """Make sure that there is a bucket, to tell that apart from a missing object.

    Raises:
        UserError: if there is none.
    """
    bucket = ObjectPath(*path.parts[:2])
    if bucket.parts[0] == "memory:":
        return
    try:
        _call(bucket, lambda fs, url: fs.info(url))
    except FileNotFoundError:
        raise _no_bucket(path) from None


def for_each(root: Path, function: Callable[[_T], _R], items: Iterable[_T]) -> Sequence[_R]:
    """Return what a function makes of each item; many at once if ``root`` is far away."""
    if not isinstance(root, ObjectPath):
        return [function(item) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def _filesystem(path: ObjectPath) -> Any:
    """Return the file system of a path; fsspec keeps one a process.

    Raises:
        UserError: if a package is not installed.
    """
    import fsspec

    protocol = path.parts[0].removesuffix(":")
    configured = fsspec.config.conf.get(protocol, {})
    options = {key: {**value, **configured.get(key, {})} for key, value in _OPTIONS.get(protocol, {}).items()}
    try:
        fs = fsspec.filesystem(protocol, use_listings_cache=False, **options)
    except ImportError as error:
        mend = _EXTRAS.get(protocol, str(error).splitlines()[0])
        raise UserError(f"{path} needs a package that is not installed: {mend}") from None
    if protocol == "s3":
        fs.retries = 1
    return fs


def _call(path: ObjectPath, function: Callable[[Any, str], _T]) -> _T:
    """Call a function with the file system and the URL, and again while it fails in ways that may pass.

    Raises:
        FileNotFoundError: if there is no such object, or no bucket.
        UserError: if the store cannot be used, or goes on failing.
    """
    pause_s = FIRST_PAUSE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return function(_filesystem(path), str(path))
        except (FileNotFoundError, FileExistsError, TypeError, UserError):
            raise
        except (NotImplementedError, ValueError) as error:
            raise UserError(f"{path}: {_line(error)}") from None
        except PermissionError as error:
            raise UserError(f"{path}: access denied ({_line(error)}): see docs/object-storage.md") from None
        except Exception as error:
            if "Credential" in type(error).__name__:
                raise UserError(
                    f"{path}: no credentials ({_line(error)}): set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"
                    " AWS_SECRET_ACCESS_KEY, for gs:// GOOGLE_APPLICATION_CREDENTIALS"
                ) from None
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise  # of the cache
            if attempt == ATTEMPTS:
                raise UserError(
                    f"{path}: failed {ATTEMPTS} times, at last with '{_line(error)}': run the same command again when"
                    " the store answers; what was committed is kept"
                ) from None
            if attempt > 2:
                say(f"{path}: {_line(error)}; trying again")
        time.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s *= 2
    raise AssertionError


def _create(fs: Any, url: str, data: bytes) -> None:
    """Put an object if there is none, or simply put it where that is unknown.

    Raises:
        Exception: whatever the store's library says if there is one, or if it fails.
    """
    try:
        fs.pipe_file(url, data, mode="create")
    except Exception as error:
        if not _knows_no_conditions(error):
            raise
        fs.pipe_file(url, data)


def _knows_no_conditions(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOSYS  # what s3fs makes of "501 Not Implemented"
    return isinstance(error, (NotImplementedError, TypeError, ValueError))


def _read(fs: Any, url: str) -> bytes | None:
    try:
        return bytes(fs.cat_file(url))
    except FileNotFoundError:
        return None


def _read_if_there(path: ObjectPath) -> bytes | None:
    return _call(path, _read)


def _no_bucket(path: ObjectPath) -> UserError:
    return UserError(
        f"{path}: there is no {'/'.join(str(path).split('/')[:3])}: make that bucket first, or name another"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
