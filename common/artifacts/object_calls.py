"""Calls to a store of objects: which library reaches it, and the pauses after a call that failed."""

import errno
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

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
_log = logging.getLogger(__name__)


def _filesystem(path: Path) -> Any:
    """Return the file system of a path; fsspec keeps one per process.

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


def call(path: Path, function: Callable[[Any, str], _T]) -> _T:
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
                _log.warning("%s: %s; trying again", path, _line(error))
        time.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s *= 2
    raise AssertionError


def knows_no_conditions(error: Exception) -> bool:
    """Return whether a call failed since the store cannot put an object only where there is none."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSYS  # what s3fs makes of "501 Not Implemented"
    return isinstance(error, (NotImplementedError, TypeError, ValueError))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
