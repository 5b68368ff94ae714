"""Real codecs, 5G LDPC and QAM in place of the trained transceiver, in as many complex uses.

==================== ==================================================================================================
baseline             what crosses the channel
==================== ==================================================================================================
``digital``          the picture as a file of its own. Text tasks: the receiver's frozen encoder reads what arrives, and
                     the trained model answers from it
``digital-bare``     the same picture, its codec's headers known to both ends and not counted
``digital-packed``   all pictures in one file
``digital-text``     the text that the trained model writes, at the transmitter
==================== ==================================================================================================

A failure is the mean colour of the validation pictures, or an empty text. Where the trained model is part of a baseline
it runs at one end, over its own channel at the greatest SNR of its training.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sclmkb.common.link.uses import UsesChannelSettings, sample_draws
from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.lam.features import Features
from sclmkb.common.models.lam.frozen import frozen_encoder
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.media.receive import outputs_of
from sclmkb.common.tasks.media.samples import TextSamples
from sclmkb.common.tasks.media.trained import TaskName
from sclmkb.evaluate.multitask.baselines.base import Baseline, BaselineSetup, Receive
from sclmkb.evaluate.separate.ldpc import has_sionna
from sclmkb.evaluate.separate.media.blocks import DigitalChannelSettings
from sclmkb.evaluate.separate.media.files import CodedPictures, Packing, Pictures
from sclmkb.evaluate.separate.media.pictures import Arrived, DigitalLink, DigitalSettings, as_tensor
from sclmkb.evaluate.separate.media.texts import TextLink

_CHOOSE_ON = 200
"""Validation samples on which schemes are chosen."""
_OF_PICTURES: tuple[TaskName, ...] = ("answer", "caption")
_TEXTS: tuple[TaskName, ...] = (*_OF_PICTURES, "caption_sound", "caption_video")


def _send_pictures(setup: BaselineSetup, *, packing: Packing = "single", headers: bool = True) -> Receive:
    """Return what decodes reconstructed pictures."""
    data, known = setup.data, setup.load("val")
    assert data.pictures is not None
    assert known.pictures is not None
    # Files of many pictures grow with their number: the scheme is chosen on as many.
    others = known.some(_CHOOSE_ON if packing == "single" else len(setup.rows))
    send = _link(setup, _pixels(data.pictures, setup.rows), _pixels(known.pictures, others), packing, headers)
    return lambda snr_db: list(as_tensor(send(snr_db).pictures))


def _answer_from_pictures(setup: BaselineSetup) -> Receive:
    """Return what answers from decoded pictures, with the trained model at the receiver."""
    encoder, data = frozen_encoder(setup.beside.settings.model, setup.data.modality), setup.data
    media, known = (MediaStore.open(setup.corpus, split, encoder.form) for split in (setup.split, "val"))
    assert data.samples is not None
    pictures = _pixels(media, data.samples.item[setup.rows])
    others = torch.arange(min(_CHOOSE_ON, len(known))) * len(known) // min(_CHOOSE_ON, len(known))
    send = _link(setup, pictures, _pixels(known, others), "single", headers=True)
    found: dict[bytes, Sequence[str]] = {}

    def receive(snr_db: float) -> Sequence[str]:
        arrived = send(snr_db)
        key = arrived.failed.tobytes() if arrived.failed.all() else arrived.pictures.tobytes()
        if key not in found:  # at the lowest SNRs nothing arrives, and the answers are the same
            found[key] = _written(setup, _with_pictures(setup, arrived), torch.arange(len(setup.rows)))
        return found[key]

    return receive


def _send_written(setup: BaselineSetup) -> Receive:
    """Return what receives the texts that the trained model writes at the transmitter."""
    train, known = setup.load("train"), setup.load("val")
    assert train.samples is not None
    link = TextLink(
        setup.uses,
        DigitalChannelSettings(channel=setup.channel, seed=setup.seed),
        fit_on=[text for texts in train.samples.references for text in texts],
        choose_on=_written(setup, known, known.some(_CHOOSE_ON)),
    )
    texts, names = _written(setup, setup.data, setup.rows), setup.row_ids
    return lambda snr_db: link.send(texts, snr_db, names).texts


def _link(
    setup: BaselineSetup, pictures: Pictures, choose_on: Pictures, packing: Packing, headers: bool
) -> Callable[[float], Arrived]:
    settings = DigitalSettings(packings=(packing,), channel=setup.channel, seed=setup.seed)
    link, coded = DigitalLink(choose_on, setup.uses, settings), CodedPictures(pictures, packing)

    def send(snr_db: float) -> Arrived:
        return link.send(coded, headers, snr_db, setup.row_ids)

    return send


def _written(setup: BaselineSetup, data: TaskData, rows: Int[Tensor, " B"]) -> list[str]:
    """Return what the trained model writes of samples where nothing disturbs it."""
    draws = sample_draws(setup.seed, data.row_ids(rows))
    best_db = setup.beside.settings.max_snr_db
    return list(outputs_of(setup.model, UsesChannelSettings(), data, rows, setup.task, best_db, draws).outputs)


@torch.no_grad()
def _with_pictures(setup: BaselineSetup, arrived: Arrived) -> TaskData:
    """Return the measured samples, in their order, with the features of the pictures that arrived."""
    encoder, samples = frozen_encoder(setup.beside.settings.model, setup.data.modality), setup.data.samples
    assert samples is not None
    # Each failure is the same picture; the encoder reads it once.
    shown, place = np.unique(np.where(arrived.failed, -1, np.arange(len(arrived.failed))), return_inverse=True)
    first = [int(np.flatnonzero(place == i)[0]) for i in range(len(shown))]
    pictures = as_tensor(arrived.pictures[first])
    tokens = [encoder.tokens(MediaBatch(some, torch.ones(len(some)))).half() for some in torch.split(pictures, 64)]
    rows = setup.rows.tolist()
    return TaskData(
        setup.data.modality,
        Features(item_ids=[str(i) for i in rows], values=torch.cat(tokens).numpy()),
        TextSamples(
            item=torch.from_numpy(place),
            prompts=[samples.prompts[i] for i in rows],
            references=[samples.references[i] for i in rows],
            row_ids=[samples.row_ids[i] for i in rows],
            groups=[samples.groups[i] for i in rows],
        ),
        None,
    )


def _pixels(media: MediaStore, rows: Int[Tensor, " N"]) -> Pictures:
    return np.ascontiguousarray(media.take(rows).values.permute(0, 2, 3, 1).numpy())


def _lacks() -> str:
    return "" if has_sionna() else "its LDPC codes need Sionna: pip install sionna-no-rt"


BASELINES = (
    Baseline(name="digital", tasks=("reconstruct",), prepare=_send_pictures, lacks=_lacks),
    Baseline(name="digital", tasks=_OF_PICTURES, prepare=_answer_from_pictures, uses_model=True, lacks=_lacks),
    Baseline(name="digital-bare", tasks=("reconstruct",), prepare=partial(_send_pictures, headers=False), lacks=_lacks),
    Baseline(
        name="digital-packed",
        tasks=("reconstruct",),
        prepare=partial(_send_pictures, packing="packed"),
        channels=("awgn",),
        lacks=_lacks,
    ),
    Baseline(name="digital-text", tasks=_TEXTS, prepare=_send_written, uses_model=True, lacks=_lacks),
)
