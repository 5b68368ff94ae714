"""Which weights of a pre-trained transformer are trained: none, its last layers, or low-rank additions to those."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from sclmkb.common.errors import UserError

Tune = Literal["frozen", "layers", "lora"]


def transformer_layers(model: nn.Module, name: str, num_tuned: int = 0) -> nn.ModuleList:
    """Return the list of a transformer's layers, the last ``num_tuned`` to be trained, whatever the family calls it.

    Raises:
        UserError: if it has no such list (ALBERT shares one layer), or fewer layers.
    """
    config: Any = model.config
    count = int(getattr(config, "num_hidden_layers", 0))
    found = next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count > 0), None)
    if found is None:
        raise UserError(f"model '{name}' ({config.model_type}) has no list of layers to tune: use tune=frozen")
    if num_tuned > count:
        raise UserError(f"model '{name}' has {count} layers, num_layers = {num_tuned} were asked for")
    return found


def tune_layers(model: nn.Module, layers: Sequence[nn.Module], tune: Tune, lora_rank: int) -> None:
    """Freeze a model, but for some layers of it.

    With ``lora`` the layers stay as they are, and each of their linear maps W becomes W + B A. A ``[r, in]`` starts
    random and B ``[out, r]`` zero; both are trained (Hu et al., LoRA, 2021).
    """
    model.requires_grad_(False)
    if tune == "layers":
        for layer in layers:
            layer.requires_grad_(True)
    elif tune == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        inside = {module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)}
        names = [name for name, module in model.named_modules() if module in inside]
        config = LoraConfig(r=lora_rank, lora_alpha=lora_rank, lora_dropout=0.0, target_modules=names)
        inject_adapter_in_model(config, model)
