"""A training run on disk: what it was asked to do, its state for resuming, and its measurements.

::

    DIR/plan.json            frozen first: kind, settings, inputs, versions
    DIR/state.safetensors    while training: everything that a resumed run needs, exact bit for bit
    DIR/metrics.jsonl        one JSON object per line, each with its "step"
    DIR/tensorboard/         the same as curves
    DIR/config.json          written last, with model.safetensors, by save_checkpoint: the run is finished

The state is one file, so that it is replaced whole or not at all. Tensors are in safetensors form. The rest (step,
hyperparameters of the optimiser, scheduler) is JSON in the file's own metadata. No pickles. A resumed run equals an
uninterrupted one bit for bit on the same machine as long as all randomness comes from the registered generators.
"""

import json
from collections.abc import Mapping
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
_SEPARATOR = "/"


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
        optimizer: any optimiser whose state is tensors and JSON values (AdamW, Adam, SGD).
        scheduler: a learning rate scheduler, if there is one.
        generators: every ``torch.Generator`` that training draws from.
        step: finished optimiser steps.
        tensors: further tensors to keep, e.g. the best weights so far.
        notes: further JSON values to keep, e.g. the best validation score so far.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    companions: Mapping[str, nn.Module] = field(default_factory=dict)
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)
    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the state to one file, replacing the former one whole."""
        optimizer = self.optimizer.state_dict()
        tensors: dict[str, Tensor] = {}
        scalars: dict[str, dict[str, Any]] = {}
        for index, entry in optimizer["state"].items():
            for name, value in entry.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{index}/{name}"] = value
                else:
                    scalars.setdefault(str(index), {})[name] = value
        tensors |= {f"module/{name}": t for name, t in trained_tensors(self.module).items()}
        for companion, module in self.companions.items():
            tensors |= {f"companion/{companion}.{name}": t for name, t in module.state_dict().items()}
        tensors |= {f"generator/{name}": g.get_state() for name, g in self.generators.items()}
        tensors |= {f"tensor/{name}": t for name, t in self.tensors.items()}
        state = {
            "version": STATE_VERSION,
            "step": self.step,
            "param_groups": optimizer["param_groups"],
            "optimizer_scalars": scalars,
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "notes": self.notes,
        }
        copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
        with replacing(path) as temporary:
            save_file(copies, temporary, metadata={"state": json.dumps(state)})

    def restore(self, path: Path) -> bool:
        """Load the state that :meth:`save` wrote; return False if there is none.

        Raises:
            UserError: if the file is corrupt or belongs to another model.
        """
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(f"corrupt training state {path}: {error}; start afresh with --new-run") from None
        if state["version"] != STATE_VERSION:
            raise UserError(f"training state {path} has another format version: start afresh with --new-run")
        names = ("module", "companion", "optimizer", "generator", "tensor")
        groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(_SEPARATOR)
            groups[group][rest] = tensor
        self._check(path, groups)
        self.module.load_state_dict(groups["module"], strict=False)
        nn.ModuleDict(dict(self.companions)).load_state_dict(groups["companion"])
        self.optimizer.load_state_dict(_optimizer_state(groups["optimizer"], state))
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        for name, generator in self.generators.items():
            generator.set_state(groups["generator"][name])
        self.step, self.tensors, self.notes = state["step"], groups["tensor"], state["notes"]
        return True

    def _check(self, path: Path, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        own = {name: t.shape for name, t in trained_tensors(self.module).items()}
        if own != {name: t.shape for name, t in groups["module"].items()}:
            raise UserError(f"training state {path} is of a model of another shape: start afresh with --new-run")
        known = nn.ModuleDict(dict(self.companions)).state_dict()
        if set(self.generators) != set(groups["generator"]) or set(known) != set(groups["companion"]):
            raise UserError(f"training state {path} is of another program version: start afresh with --new-run")


def _optimizer_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> dict[str, Any]:
    entries: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in state["optimizer_scalars"].items()}
    for name, tensor in tensors.items():
        index, _, key = name.partition(_SEPARATOR)
        entries.setdefault(int(index), {})[key] = tensor
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in state["param_groups"]]
    return {"state": entries, "param_groups": groups}


class TrainingRun:
    """The folder of a training run.

    Attributes:
        root: the folder.
        writes: whether this process writes; of several processes of one run, only the first does.
        curves: what is logged, for TensorBoard.
        finished: whether the final checkpoint is there.
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
            writes: whether this process writes measurements and states.

        Raises:
            UserError: if the folder holds another run, or something that is no run; or if this is not the process that
                writes, and the one that does, which comes first, wrote into another folder.
        """
        wanted = {
            "kind": kind,
            "settings": dict(settings),
            "inputs": dict(inputs),
            "versions": {"torch": torch.__version__},
        }
        path = root / "plan.json"
        if not writes and not path.exists():
            raise UserError(f"the first process made no {path} that this one sees: all machines must see that folder")
        if not holds_run(root, path.name, wanted, new_run=new_run):
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

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records logged so far; a line that a crash cut off is left out."""
        path = self.root / "metrics.jsonl"
        records = []
        for line in path.read_text("utf-8").splitlines() if path.exists() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records

    def rewind_metrics(self, step: int) -> None:
        """Drop the records after ``step``: a resumed run makes them again."""
        if not self.writes:
            return
        kept = [record for record in self.metrics() if record["step"] <= step]
        with replacing(self.root / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")
        self.curves.rewind(step)
