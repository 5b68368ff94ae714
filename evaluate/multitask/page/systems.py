"""The systems that a page compares: trained transceivers, and the digital link in as many complex uses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.link.uses import UsesChannelSettings, sample_draws
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.lam.features import Features
from sclmkb.common.models.lam.frozen import frozen_encoder
from sclmkb.common.models.lam.frozen_base import FrozenEncoder
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.models.lam.system import RECONSTRUCT, MtscModel, uses_of
from sclmkb.common.tasks.media.base import TextTask
from sclmkb.common.tasks.media.data import PICTURE_SIZE, TaskData, corpus_for
from sclmkb.common.tasks.media.receive import Received, outputs_of
from sclmkb.common.tasks.media.samples import TextSamples, load_text_samples
from sclmkb.common.tasks.media.trained import MEDIA_TASKS, TrainedMtsc
from sclmkb.evaluate.multitask.page.media import Medium
from sclmkb.evaluate.separate.media.blocks import BlockErrors, DigitalChannelSettings
from sclmkb.evaluate.separate.media.files import CodedPictures
from sclmkb.evaluate.separate.media.pictures import DigitalLink, DigitalSettings, as_tensor
from sclmkb.evaluate.separate.media.texts import TextLink

_CHOOSE_ON = 16
"""Validation samples on which the page's digital link chooses its schemes; a measurement takes more."""
_NUM_WORDS = 25


class Sending(NamedTuple):
    """How something is sent: the SNR per complex use [dB], the channel, and the seed of gain and noise."""

    snr_db: float
    channel: UsesChannelSettings
    seed: int


class Output(NamedTuple):
    """What a receiver makes of a medium in one task.

    Attributes:
        task: its name.
        uses: complex channel uses that were sent.
        text: that it writes; None of a picture.
        unseen: what it writes if the mean of all media is sent in place of the medium; None: not tried.
        written: the text that the transmitter sends, if it is a text that is sent.
        picture: that it draws ``[3, S, S]``; None of a text.
        note: what else is to be said.
        failed: whether nothing could be decoded.
    """

    task: str
    uses: float
    text: str | None = None
    unseen: str | None = None
    written: str | None = None
    picture: Tensor | None = None
    note: str = ""
    failed: bool = False


class PageSystem(Protocol):
    """A system that a page can choose."""

    @property
    def name(self) -> str:
        """How the page calls it."""

    @property
    def tasks(self) -> Sequence[str]:
        """What it does."""

    def send(self, medium: Medium, task: str, question: str, sending: Sending) -> Output:
        """Send a medium for a task, with the question of an answer."""


class Encoders:
    """The frozen encoders of media, each loaded once, and what they made of the latest media."""

    def __init__(self) -> None:
        self._known: dict[str, FrozenEncoder] = {}
        self._tokens = lru_cache(maxsize=16)(self._encode)

    def tokens(self, medium: Medium, sizes: MtscModelSettings) -> Float[Tensor, "1 F f"]:
        """Return the tokens of a medium, of half precision as in training.

        Raises:
            UserError: if it cannot be read.
        """
        encoder = frozen_encoder(sizes, medium.kind)
        self._known.setdefault(encoder.key, encoder)
        return self._tokens(medium, encoder.key)

    @torch.no_grad()
    def _encode(self, medium: Medium, key: str) -> Tensor:
        encoder = self._known[key]
        return encoder.tokens(medium.decode(encoder.form)).half()


@dataclass(frozen=True, kw_only=True)
class Semantic:
    """A trained transceiver.

    Attributes:
        trained: its checkpoint.
        encoders: shared by all of a page.
    """

    trained: TrainedMtsc
    encoders: Encoders

    @property
    def name(self) -> str:
        """System and seed."""
        return f"{self.trained.settings.system} seed {self.trained.settings.seed}"

    @property
    def tasks(self) -> Sequence[str]:
        """What it was trained for."""
        return self.trained.settings.tasks

    @cached_property
    def model(self) -> MtscModel:
        """The model, in evaluation mode."""
        return self.trained.model()

    def send(self, medium: Medium, task: str, question: str, sending: Sending) -> Output:
        """Send a medium, and for texts also the mean of all media, through the same gain and noise."""
        got = self.receive(medium, task, question, sending)
        uses = float(got.uses[0])
        if task == RECONSTRUCT:
            return Output(task, uses, picture=got.outputs[0])
        return Output(task, uses, text=got.outputs[0], unseen=got.outputs[1])

    def receive(self, medium: Medium, task: str, question: str, sending: Sending) -> Received:
        """Return what arrives of a medium, and after it, for texts, of the mean of all media in its place."""
        row_id, of = row_id_of(medium, task, question), MEDIA_TASKS[task]
        features, samples, pictures = self._features(medium), None, None
        if isinstance(of, TextTask):
            mean = self.model.projection_of(medium.kind).mean.to(features.dtype).expand_as(features)
            features = torch.cat([features, mean])
            samples = TextSamples(
                item=torch.arange(2), prompts=[of.prompt or question] * 2, references=[[], []],
                row_ids=[row_id] * 2, groups=[medium.item_id] * 2,
            )  # fmt: skip
        else:
            form = PictureForm(size=PICTURE_SIZE)
            pictures = MediaStore(form, [row_id], medium.decode(form).values.numpy())
        ids = [row_id] * len(features)
        data = TaskData(medium.kind, Features(item_ids=ids, values=features.numpy()), samples, pictures)
        draws = sample_draws(sending.seed, ids)
        rows = torch.arange(len(ids))
        return outputs_of(self.model, sending.channel, data, rows, task, sending.snr_db, draws)

    def _features(self, medium: Medium) -> Tensor:
        if medium.kind not in self.model.projections:  # pictures alone, by a codec that reads no features
            return torch.from_numpy(Features.none([medium.item_id]).values.copy())
        return self.encoders.tokens(medium, self.trained.settings.model)


@dataclass(frozen=True, kw_only=True)
class Digital:
    """The digital link in as many uses as a trained transceiver: a picture as a file, or the text that it writes.

    Attributes:
        beside: the transceiver.
        corpora: of its tasks; their validation splits are what schemes are chosen on.
    """

    beside: Semantic
    corpora: Sequence[Artifact]
    _errors: BlockErrors = field(default_factory=lambda: BlockErrors(_NUM_WORDS))
    _pictures: dict[UsesChannelSettings, DigitalLink] = field(default_factory=dict)
    _texts: dict[tuple[str, UsesChannelSettings], TextLink] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How the page calls it."""
        return "digital"

    @property
    def tasks(self) -> Sequence[str]:
        """The same."""
        return self.beside.tasks

    def send(self, medium: Medium, task: str, question: str, sending: Sending) -> Output:
        """Send a picture as a file, or the text that the transceiver writes where nothing disturbs it.

        Raises:
            UserError: if no code is as short as the uses, or no corpus has validation samples of the task.
        """
        uses, row_id = float(uses_of(self.beside.trained.settings.model)[task]), row_id_of(medium, task, question)
        if task == RECONSTRUCT:
            coded = CodedPictures(_pixels(medium), "single")
            sent = self._picture_link(sending.channel).send(coded, True, sending.snr_db, [_named(row_id, sending)])
            note, failed = sent.choice.name, bool(sent.failed[0])
            return Output(task, uses, picture=as_tensor(sent.pictures)[0], note=note, failed=failed)
        best = Sending(self.beside.trained.settings.max_snr_db, UsesChannelSettings(), 0)
        written = self.beside.receive(medium, task, question, best).outputs[0]
        arrived = self._text_link(task, sending.channel).send([written], sending.snr_db, [_named(row_id, sending)])
        text, failed = arrived.texts[0], bool(arrived.failed[0])
        return Output(task, uses, text=text, written=written, note=arrived.scheme, failed=failed)

    def _picture_link(self, channel: UsesChannelSettings) -> DigitalLink:
        if channel not in self._pictures:
            form = PictureForm(size=PICTURE_SIZE)
            known = MediaStore.open(corpus_for(RECONSTRUCT, self.corpora), "val", form)
            count = min(_CHOOSE_ON, len(known))
            some = known.take(torch.arange(count) * len(known) // count).values.permute(0, 2, 3, 1)
            uses = uses_of(self.beside.trained.settings.model)[RECONSTRUCT]
            settings = DigitalSettings(packings=("single",), channel=channel)
            self._pictures[channel] = DigitalLink(np.ascontiguousarray(some), uses, settings, self._errors)
        return self._pictures[channel]

    def _text_link(self, task: str, channel: UsesChannelSettings) -> TextLink:
        if (task, channel) not in self._texts:
            corpus, of = corpus_for(task, self.corpora), MEDIA_TASKS[task]
            assert isinstance(of, TextTask)
            told = {}
            for split in ("train", "val"):
                ids = corpus.table("items", split, ["item_id"])["item_id"].to_pylist()
                references = load_text_samples(corpus, split, of, ids).references
                told[split] = [text for texts in references for text in texts]
            some = told["val"][:: max(1, len(told["val"]) // _CHOOSE_ON)][:_CHOOSE_ON]
            uses = uses_of(self.beside.trained.settings.model)[task]
            settings = DigitalChannelSettings(channel=channel)
            self._texts[task, channel] = TextLink(uses, settings, fit_on=told["train"], choose_on=some)
        return self._texts[task, channel]


def row_id_of(medium: Medium, task: str, question: str) -> str:
    """Return the id by which a measurement names a sample, so that it meets the same gain and noise here.

    A medium about which nobody asked or said that is named by its own id.
    """
    of = MEDIA_TASKS[task]
    if not isinstance(of, TextTask):
        return medium.item_id
    if of.role == "answer":
        return next((one.row_id for one in medium.asked if one.question == question), medium.item_id)
    return medium.captions[0][0] if medium.captions else medium.item_id


def _named(row_id: str, sending: Sending) -> str:
    """Return a name from which gain, noise and failures follow: that of a measurement at seed 0."""
    return row_id if sending.seed == 0 else f"{row_id} {sending.seed}"


def _pixels(medium: Medium) -> UInt8[np.ndarray, "1 S S 3"]:
    values = medium.decode(PictureForm(size=PICTURE_SIZE)).values
    return np.ascontiguousarray(values.permute(0, 2, 3, 1).numpy())
