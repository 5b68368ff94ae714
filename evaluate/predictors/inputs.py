"""What ``sclmkb-eval csi`` measures, and on what: predictors found below a folder, and CSI artifacts."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.checkpoints import load_checkpoint
from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.config import fingerprint, flatten
from sclmkb.common.csi.sets import CsiSet, CsiShape, csi_shard
from sclmkb.common.errors import UserError
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.base import CsiPredictor
from sclmkb.common.models.csi.persistence import Persistence
from sclmkb.common.models.csi.zoo import check_shape, load_predictor
from sclmkb.evaluate.measure.systems import finished_runs

SPLIT = "test"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A predictor to measure.

    Attributes:
        system: its name; that of all seeds of one system.
        kind: of predictor.
        seed: of its training; 0 where nothing is trained.
        settings: flat, without the seed.
        digest: changes with whatever changes its predictions.
        root: folder of its checkpoint, if it has one.
        load: loads it, given the shape and the folder of the CSI.
    """

    system: str
    kind: str
    seed: int
    settings: dict[str, Any]
    digest: str
    load: Callable[[CsiShape, Path], CsiPredictor]
    root: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A CSI artifact to measure on; ``redraws`` says whether the noise can be drawn anew."""

    name: str
    root: Path
    fingerprint: str
    shape: CsiShape
    drops: int
    redraws: bool


def classical(ar_order: int) -> list[Candidate]:
    """Return the predictors that need no training."""

    def autoregression(shape: CsiShape, csi: Path) -> CsiPredictor:
        least = ar_order + shape.num_future
        if shape.num_history < least:
            raise UserError(
                f"AR({ar_order}) needs {least} history samples, the CSI in {csi} has {shape.num_history}:"
                " --set ar_order=…"
            )
        return AutoRegression(ar_order)

    name = f"AR({ar_order})"
    return [
        Candidate(
            system="persistence", kind="persistence", seed=0, settings={}, digest="1", load=lambda *_: Persistence()
        ),
        Candidate(system=name, kind="ar", seed=0, settings={"order": ar_order}, digest="1", load=autoregression),
    ]


def find_candidates(root: Path) -> list[Candidate]:
    """Return the fitted predictors below a folder; runs set aside are left out.

    Checkpoints that differ in nothing but their seed are one system. Its name is that of their folder below ``root``
    without a last part like ``seed-0``, or the kind of predictor where nothing is left.

    Raises:
        UserError: if there is none, a run is unfinished, or two are the same system and seed.
    """
    found: dict[tuple[str, int], Candidate] = {}
    names: dict[str, str] = {}  # the system's identity, by name
    for folder in finished_runs(root, "cdg"):
        checkpoint = load_checkpoint(folder, "cdg")
        try:
            seed, kind = int(checkpoint.info["seed"]), str(checkpoint.settings["model"]["kind"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"checkpoint {folder} was written by another version: train it again") from None
        own = {name: value for name, value in checkpoint.settings.items() if name != "seed"}
        inputs = {f"trained on {k}": v for k, v in checkpoint.info.get("inputs", {}).items() if k.startswith("csi")}
        settings = flatten(own) | inputs | flatten({"shape": checkpoint.info["shape"]})
        identity = fingerprint(settings)
        name = _system_name(folder.relative_to(root), seed) or kind
        if names.setdefault(name, identity) != identity:  # another system in a folder of the same name
            name = next((n for n, i in names.items() if i == identity), f"{name}-{identity[:4]}")
            names[name] = identity
        else:
            name = next(n for n, i in names.items() if i == identity)
        if (name, seed) in found:
            raise UserError(f"{folder} and {found[name, seed].root} both hold '{name}' seed {seed}: move one away")

        def load(shape: CsiShape, csi: Path, folder: Path = folder) -> CsiPredictor:
            predictor, loaded = load_predictor(folder)
            check_shape(loaded, shape, csi)
            return predictor

        digest = sha256_file(folder / "model.safetensors")[:12]
        found[name, seed] = Candidate(
            system=name, kind=kind, seed=seed, settings=settings, digest=digest, root=folder, load=load
        )
    return [found[key] for key in sorted(found)]


def open_sources(csi: Sequence[Path]) -> list[Source]:
    """Return the CSI artifacts, named after their folders.

    Raises:
        UserError: if one is missing, unfinished, corrupt, without a test split, or named twice.
    """
    sources: dict[str, Source] = {}
    for root in csi:
        artifact = Artifact.open(root, "csi")
        name = root.resolve().name
        if name in sources:
            name = f"{root.resolve().parent.name}-{name}"
        if name in sources:
            raise UserError(f"{root} and {sources[name].root} have the same name: rename one of the folders")
        shards = [shard for shard in artifact.plan.shards if shard.split == SPLIT and shard.row_ids]
        if not shards:
            raise UserError(f"{root} has no test drops, only the splits {', '.join(artifact.splits)}")
        first = csi_shard(artifact, shards[0].name)
        sources[name] = Source(
            name=name,
            root=root,
            fingerprint=artifact.fingerprint,
            shape=first.shape,
            drops=sum(len(shard.row_ids) for shard in shards),
            redraws=_can_redraw(artifact.plan.settings, first),
        )
    return list(sources.values())


def _can_redraw(settings: Mapping[str, Any], drops: CsiSet) -> bool:
    """Return whether white noise on the clean histories gives what the histories of an artifact are.

    Not if a pilot pattern or a quantiser shaped them, nor if an importer knew no clean history and repeated the noisy
    one.
    """
    shaped = settings.get("pilot_pattern", "full") != "full" or "feedback_bits" in settings
    return not shaped and not torch.equal(drops.clean_history, drops.history)


def _system_name(folder: Path, seed: int) -> str:
    """Return the name of a system from its folder, without the seed."""
    *parents, last = folder.parts or ("",)
    name = re.sub(rf"(^|[-_])(seed-|seed|s|){seed}$", "", last)
    return "/".join([*parents, name] if name else parents)
