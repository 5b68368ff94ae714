"""What an encoder of the filter is made of, found without loading it, nor PyTorch for the usual ones."""

from pathlib import Path

from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.config import fingerprint
from sclmkb.common.models.pretrained import model_fingerprint, resolve_encoder

JSCC_PREFIX = "jscc:"


def encoder_fingerprint(name: str) -> str:
    """Return a hash of an encoder's files, for the plan of a run.

    Raises:
        UserError: if there is no such encoder.
    """
    if not name.startswith(JSCC_PREFIX):
        return model_fingerprint(resolve_encoder(name))
    from sclmkb.common.tasks.trained import TrainedSystem

    folder = Path(name.removeprefix(JSCC_PREFIX))
    text = TrainedSystem.load(folder).settings.text
    sentences = model_fingerprint(resolve_encoder(text.name))
    return fingerprint([sentences, sha256_file(folder / "model.safetensors")])
