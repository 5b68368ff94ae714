"""A training run on disk: what it was asked to do, its state for resuming, and its measurements.

::

    DIR/plan.json            frozen first: kind, settings, inputs, versions
    DIR/state.safetensors    while training: everything that a resumed run needs, exact bit for bit
    DIR/metrics.jsonl        one JSON object per line, each with its "step"
    DIR/tensorboard/         the same as curves
    DIR/config.json          written last, with model.safetensors, by save_checkpoint: the run is finished

The state is one file, so that it is replaced whole or not at all. Tensors are in safetensors form. The rest (step,
hyperparameters of the optimiser, scheduler) is JSON in the file's own metadata. No pickles. A resumed run equals an
uninterrupted one bit for bit on the same machine as long as all randomness follows from the number of the step.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sclmkb.common.artifacts.files import replacing, write_json
from sclmkb.common.artifacts.run_folder import holds_run
from sclmkb.common.errors import UserError
from sclmkb.train.engine.curves import Curves

STATE_VERSION = "1"


def trained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that are trained and the persistent buffers, by name; frozen parameters are left out."""
    frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


@dataclass(kw_only=True)
class TrainingState:
    """Everything that changes while training.

    Attributes:
        module: the model; only :func:`trained_tensors` are kept.
        companions: further modules that are trained with it, but are no part of it.
        optimizer: any optimiser whose state is tensors, as AdamW's.
        scheduler: of its learning rate.
        step: finished optimiser steps.
        tensors: further tensors to keep, e.g. the best weights so far.
        notes: further JSON values to keep, e.g. the best validation score so far.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    companions: Mapping[str, nn.Module] = field(default_factory=dict)
    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def keep_as_best(self, figure: float) -> None:
        """Keep the weights as they are now: they have the best figure of validation so far."""
        self.notes |= {"best": figure, "best_step": self.step}
        self.tensors = {name: t.detach().clone() for name, t in trained_tensors(self.module).items()}

    def save(self, path: Path) -> None:
        """Write the state to one file, replacing the former one whole."""
        optimizer = self.optimizer.state_dict()
        groups = {
            "module": trained_tensors(self.module),
            "companion": self._companions.state_dict(),
            "optimizer": {f"{i}/{name}": t for i, entry in optimizer["state"].items() for name, t in entry.items()},
            "tensor": self.tensors,
        }
        state = {
            "version": STATE_VERSION,
            "step": self.step,
            "param_groups": optimizer["param_groups"],
            "scheduler": self.scheduler.state_dict(),
            "notes": self.notes,
        }
        copies = {
            f"{group}/{name}": t.detach().to("cpu", copy=True).contiguous()
            for group, tensors in groups.items()
            for name, t in tensors.items()
        }
        with replacing(path) as temporary:
            save_file(copies, temporary, metadata={"state": json.dumps(state)})

    def restore(self, path: Path) -> bool:
        """Load the state that :meth:`save` wrote; return False if there is none.

        Raises:
            UserError: if the file is corrupt or belongs to another model.
        """
        if not path.exists():
            return False
        groups: dict[str, dict[str, Tensor]] = {"module": {}, "companion": {}, "optimizer": {}, "tensor": {}}
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads((file.metadata() or {})["state"])
                if state["version"] != STATE_VERSION:
                    raise UserError(f"training state {path} has another format version: start afresh with --new-run")
                for key in file.keys():  # noqa: SIM118 (no mapping)
                    group, _, name = key.partition("/")
                    groups[group][name] = file.get_tensor(key)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(f"corrupt training state {path}: {error}; start afresh with --new-run") from None
        own = {name: t.shape for name, t in trained_tensors(self.module).items()}
        if own != {name: t.shape for name, t in groups["module"].items()}:
            raise UserError(f"training state {path} is of a model of another shape: start afresh with --new-run")
        if self._companions.state_dict().keys() != groups["companion"].keys():
            raise UserError(f"training state {path} is of another program version: start afresh with --new-run")
        self.module.load_state_dict(groups["module"], strict=False)
        self._companions.load_state_dict(groups["companion"])
        self.optimizer.load_state_dict(_optimizer_state(groups["optimizer"], state["param_groups"]))
        self.scheduler.load_state_dict(state["scheduler"])
        self.step, self.tensors, self.notes = state["step"], groups["tensor"], state["notes"]
        return True

    @property
    def _companions(self) -> nn.ModuleDict:
        return nn.ModuleDict(dict(self.companions))


def _optimizer_state(tensors: Mapping[str, Tensor], param_groups: list[dict[str, Any]]) -> dict[str, Any]:
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        entries.setdefault(int(index), {})[name] = tensor
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in param_groups]
    return {"state": entries, "param_groups": groups}


class TrainingRun:
    """The folder of a training run.

    Attributes:
        root: the folder.
        writes: whether this process writes; of several processes of one run, only the first does.
        curves: what is logged, for TensorBoard.
    """

    def __init__(self, root: Path, *, writes: bool = True) -> None:
        """Use :meth:`open`."""
        self.root, self.writes = root, writes
        self.curves = Curves(root / "tensorboard")

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        kind: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        new_run: bool = False,
        writes: bool = True,
    ) -> "TrainingRun":
        """Start a run in ``root``, or go on with the run of the same plan that is there.

        Args:
            root: the folder.
            kind: ``cdg`` or ``jscc``.
            settings: the fields that can change the result (:meth:`Settings.fingerprint_fields`).
            inputs: fingerprint of every artifact and model read.
            new_run: if another run is there, move it to ``root.old-N`` and start afresh.
            writes: whether this process writes measurements and states, and sets another run aside.

        Raises:
            UserError: if the folder holds another run, or something that is no run; or if this is not the process that
                writes, and the one that does, which comes first, wrote into another folder.
        """
        versions = {"torch": torch.__version__}
        wanted = {"kind": kind, "settings": dict(settings), "inputs": dict(inputs), "versions": versions}
        path = root / "plan.json"
        if not writes and not path.exists():
            raise UserError(f"the first process made no {path} that this one sees: all machines must see that folder")
        if not holds_run(root, path.name, wanted, new_run=new_run and writes):
            write_json(path, wanted)
        return cls(root, writes=writes)

    @property
    def finished(self) -> bool:
        """Whether the final checkpoint has been written."""
        return (self.root / "config.json").exists()

    @property
    def state_path(self) -> Path:
        """Where the resumable state is."""
        return self.root / "state.safetensors"

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record, which has a ``step``, to ``metrics.jsonl`` and to the curves."""
        if not self.writes:
            return
        with (self.root / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(record)) + "\n")
        self.curves.add(record)

    def rewind_metrics(self, step: int) -> None:
        """Drop the records after ``step``, which a resumed run makes again, and a line that a crash cut off."""
        if not self.writes:
            return
        path, kept = self.root / "metrics.jsonl", ""
        for line in path.read_text("utf-8").splitlines() if path.exists() else []:
            with suppress(ValueError):
                kept += f"{line}\n" if json.loads(line)["step"] <= step else ""
        with replacing(path) as temporary:
            temporary.write_text(kept, "utf-8")
        self.curves.rewind(step)
