"""Loading of pre-trained encoders through the library transformers."""

from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn

from sclmkb.common.errors import UserError, first_line
from sclmkb.common.models.pretrained import quiet_loading, resolve_media_model


def read_config(what: str, name: str, resolved: str) -> Any:
    """Return the configuration of a model.

    Args:
        what: what the model is, for messages.
        name: what the user calls it.
        resolved: its folder or hub name.

    Raises:
        UserError: if it cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(resolved)
    except (OSError, ValueError, KeyError) as error:
        raise cannot_load(what, name, error) from None


def load_weights(loader: Any, what: str, name: str, resolved: str, config: Any) -> tuple[nn.Module, list[str]]:
    """Return a model in float32, and the names of the weights that its files lack.

    Raises:
        UserError: if it cannot be loaded.
    """
    try:
        with quiet_loading():
            model, info = loader.from_pretrained(resolved, config=config, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise cannot_load(what, name, error) from None
    return cast(nn.Module, model), sorted(info["missing_keys"])


def read_media_config(name: str, family: str) -> tuple[str, Any]:
    """Return where a media encoder is and its configuration; it must be of a family.

    Raises:
        UserError: if it is not there or of another family.
    """
    resolved = resolve_media_model(name)
    config = read_config("media encoder", name, resolved)
    if not str(config.model_type).startswith(family):
        raise UserError(f"the media encoder '{name}' is of the kind {config.model_type}, not {family}")
    return resolved, config


def load_media_model(loader: Any, name: str, resolved: str, config: Any) -> nn.Module:
    """Return a whole media encoder in evaluation mode.

    Raises:
        UserError: if it cannot be loaded or lacks weights.
    """
    model, missing = load_weights(loader, "media encoder", name, resolved, config)
    if missing:
        raise UserError(
            f"the media encoder '{name}' lacks the weights '{missing[0]}' (and {len(missing) - 1} more): name a"
            " complete model"
        )
    return model.eval()


def cannot_load(what: str, name: str, error: Exception) -> UserError:
    """Return the one line for a model that the library refuses."""
    return UserError(f"cannot load the {what} '{name}': {first_line(error)}")
