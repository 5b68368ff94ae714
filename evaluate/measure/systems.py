"""Trained transceivers with what they are measured and searched on: a gallery, a channel and a text encoder."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import read_json
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import Channel, CsiSource, LinkCsi, LinkSettings, load_link_csi
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.encoders.tuned_text import CaptionEncoder
from sclmkb.common.models.transceiver import Transceiver, embed_gallery
from sclmkb.common.options import preset_folder
from sclmkb.common.tasks.base import Task
from sclmkb.common.tasks.retrieval import RETRIEVAL
from sclmkb.common.tasks.retrieval_corpus import RetrievalSplit
from sclmkb.common.tasks.trained import Trained, TrainedSystem
from sclmkb.evaluate.search.items import Items

MAIN_SYSTEM = "sc-lmkb"
"""Name of the full system."""


@dataclass(frozen=True, kw_only=True)
class OpenSystem:
    """A checkpoint that is ready to search.

    Attributes:
        name: system and seed.
        csi: which CSI its transmitter has.
        channel: what lies between transmitter and receiver.
        model: in evaluation mode.
        captions: the text encoder before it.
        items: the gallery's items.
        gallery: their embeddings.
        link: channels of the test split.
    """

    name: str
    csi: str
    channel: Channel
    model: Transceiver
    captions: CaptionEncoder
    items: Items
    gallery: Float[Tensor, "N d"]
    link: LinkCsi

    def embed(self, sentence: str) -> Float[Tensor, "1 t"]:
        """Return the text embedding of a sentence; it is kept nowhere."""
        return self.captions.encode([sentence])


@dataclass
class Loader:
    """Loads checkpoints; what several of them need is read once.

    Attributes:
        corpus: the corpus.
        csi: CSI artifact, for systems that were trained on one.
        predicted: predicted CSI, for systems that use it.
        split_name: split of corpus and CSI.
        link_settings: of the link; by default those that a checkpoint was trained for.
        task: what the checkpoints are for; it reads the split.
    """

    corpus: Artifact
    csi: Path | None
    predicted: Path | None
    split_name: str = "test"
    link_settings: LinkSettings | None = None
    task: Task = RETRIEVAL
    _splits: dict[Any, RetrievalSplit] = field(default_factory=dict)
    _items: dict[Any, Items] = field(default_factory=dict)
    _links: dict[Any, LinkCsi] = field(default_factory=dict)
    _frozen: dict[TextSettings, CaptionEncoder] = field(default_factory=dict)

    def open(self, trained: TrainedSystem) -> OpenSystem:
        """Return a checkpoint that is ready to search; its gallery is embedded here.

        Raises:
            UserError: if the checkpoint does not fit its settings or the inputs.
        """
        model, text = trained.model(), trained.settings.text
        split = self.split(model)
        form = split.media.form
        if form not in self._items:
            self._items[form] = Items(self.corpus, split)
        captions = self._frozen.get(text) or CaptionEncoder(text, model.text)
        if model.text is None:
            self._frozen[text] = captions
        return OpenSystem(
            name=trained.name,
            csi=trained.settings.csi_source,
            channel=(self.link_settings or trained.settings.link).channel,
            model=model,
            captions=captions,
            items=self._items[form],
            gallery=embed_gallery(model, split.media),
            link=self.link(trained),
        )

    def split(self, model: Transceiver) -> RetrievalSplit:
        """Return the corpus as a model's media encoder takes it."""
        form = model.settings.media.form()
        if form not in self._splits:
            self._splits[form] = self.task.inputs(self.corpus, self.split_name, form)
        return self._splits[form]

    def link(self, trained: TrainedSystem) -> LinkCsi:
        """Return the channels that a system was trained for, and its transmitter's CSI."""
        of = trained.settings
        return self.channels(of.csi_source, of.model.num_streams, self.link_settings or of.link)

    def channels(self, source: CsiSource, num_streams: int, link: LinkSettings) -> LinkCsi:
        """Return the channels of a link, and what its transmitter knows of them.

        Raises:
            UserError: see :func:`load_link_csi`.
        """
        key = (source, num_streams, link)
        if key not in self._links:
            self._links[key] = load_link_csi(self.csi, self.predicted, self.split_name, *key)
        return self._links[key]


def find_checkpoints(root: Path, seeds: Collection[int] | None = None) -> list[TrainedSystem]:
    """Return the finished JSCC checkpoints below a folder, by system and seed; runs set aside are left out.

    ``seeds`` chooses those of some seeds; default: all.

    Raises:
        UserError: if there is none, a run is unfinished, or two have the same system and seed.
    """
    found: dict[tuple[str, int], TrainedSystem] = {}
    for folder in finished_runs(root, "jscc", seeds):
        trained = TrainedSystem.load(folder)
        key = (trained.settings.system, trained.settings.seed)
        if key in found:
            raise UserError(f"{folder} and {found[key].root} both hold system '{key[0]}' seed {key[1]}: move one away")
        found[key] = trained
    return [found[key] for key in sorted(found)]


def finished_runs(root: Path, kind: str, seeds: Collection[int] | None = None) -> list[Path]:
    """Return the folders of the training runs of a kind below a folder; see :func:`find_checkpoints`.

    Raises:
        UserError: if there is none, or one is unfinished.
    """
    plans = [p for p in sorted(root.rglob("plan.json")) if ".old-" not in str(p.relative_to(root))]
    read = {p.parent: read_json(p) for p in plans}
    roots = [folder for folder, plan in read.items() if plan.get("kind") == kind]
    if seeds is not None:
        roots = [folder for folder in roots if read[folder].get("settings", {}).get("seed") in seeds]
    if not roots:
        named = f" of seed {' or '.join(map(str, seeds))}" if seeds is not None else ""
        raise UserError(
            f"no {kind} checkpoint{named} below {root}: train one with sclmkb-train {kind} --out {root}/NAME"
        )
    for folder in roots:
        if not (folder / "config.json").exists():
            raise UserError(f"the run in {folder} is unfinished: start sclmkb-train {kind} with the same options again")
    return roots


def kinds_below(paths: Sequence[Path]) -> set[str]:
    """Return the kinds of the runs in folders and below them; runs set aside are left out."""
    plans = [(path, plan) for path in paths for plan in path.rglob("plan.json")]
    return {str(read_json(plan).get("kind")) for path, plan in plans if ".old-" not in str(plan.relative_to(path))}


def open_checkpoints(paths: Sequence[Path]) -> list[TrainedSystem]:
    """Return the checkpoints of ``sclmkb-train jscc`` in folders, or below folders that are none themselves.

    Raises:
        UserError: if there is none, or one cannot be read.
    """
    found: dict[Path, TrainedSystem] = {}
    for path in paths:
        own = [TrainedSystem.load(path)] if (path / "config.json").exists() else find_checkpoints(path)
        found |= {trained.root.resolve(): trained for trained in own}
    return list(found.values())


def open_loader(
    checkpoints: Sequence[TrainedSystem],
    *,
    preset: str | None = None,
    corpus: Path | None = None,
    csi: Path | None = None,
    predicted: Path | None = None,
) -> Loader:
    """Return what loads checkpoints for a search.

    Paths left out are those beside the first checkpoint: of a preset, or of the nearest folder above it that has a
    corpus.

    Raises:
        UserError: if an artifact that a checkpoint needs is missing or corrupt.
    """
    folder = home_of(checkpoints[0], preset)
    opened = Artifact.open(corpus or folder / "corpus", "corpus")
    fingerprints = {"corpus": opened.fingerprint}
    csi, predicted = csi or folder / "csi", predicted or folder / "predicted"
    if any(trained.settings.link.needs_csi for trained in checkpoints):
        fingerprints["csi"] = Artifact.open(csi, "csi", verify=False).fingerprint
    warn_of_other_inputs(checkpoints, fingerprints)
    return Loader(opened, csi, predicted)


def the_task(checkpoints: Sequence[Trained]) -> Task:
    """Return the task that all of some systems were trained for.

    Raises:
        UserError: if there are several.
    """
    of = {one.settings.task: one for one in checkpoints}
    if len(of) > 1:
        named = " and ".join(f"{one.root} for {name}" for name, one in of.items())
        raise UserError(f"systems of several tasks cannot be measured together: {named}; name a folder with one task")
    return next(iter(of.values())).settings.task_object


def main_checkpoint(checkpoints: Sequence[TrainedSystem]) -> TrainedSystem:
    """Return the one to search with where none is named: the first of the full system, or else the first of all."""
    return next((c for c in checkpoints if c.settings.system == MAIN_SYSTEM), checkpoints[0])


def home_of(checkpoint: TrainedSystem, preset: str | None) -> Path:
    """Return the folder that holds a checkpoint's knowledge base unless it is named."""
    above = () if preset else checkpoint.root.resolve().parents
    return next((folder for folder in above if (folder / "corpus" / "plan.json").exists()), preset_folder(preset))


def warn_of_other_inputs(checkpoints: Sequence[Trained], fingerprints: Mapping[str, str]) -> None:
    """Say which checkpoints were trained on another corpus or CSI than is used now."""
    for checkpoint in checkpoints:
        used = [name for name in ("corpus", "csi") if name in fingerprints and name in checkpoint.inputs]
        if other := [name for name in used if checkpoint.inputs[name] != fingerprints[name]]:
            say(f"eval: {checkpoint.root} was trained on another {' and '.join(other)} than it is used on")
