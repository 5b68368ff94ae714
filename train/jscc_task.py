"""What training the semantic transceiver is: its settings, its data in memory, and what one step does.

::

    source caption ─► E_α ─► F_s ─┐
                                  ├─ fusion (25)-(29) ─► channel ─► D_β ─► t^ ─┐
    generated caption ► E_α ► F_g ┘                                            ├─ contrastive loss
    picture ─► augmentation ─► CNN ────────────────────────────────────────────┘
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from sclmkb.common.artifacts import Artifact
from sclmkb.common.channel.link import CsiSource, LinkCsi, LinkState, load_link_csi
from sclmkb.common.channel.mimo import normalise_power
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.corpora.media_store import MediaBatch
from sclmkb.common.corpora.retrieval import RetrievalSplit, load_retrieval_split
from sclmkb.common.metrics import retrieval
from sclmkb.common.models.encoders import embed_texts
from sclmkb.common.models.fusion import FusionWeights, Importance, fuse, fusion_weights, pool_importance
from sclmkb.common.models.transceiver import (
    RECEIVERS,
    Receiver,
    Transceiver,
    TransceiverSettings,
    embed_gallery,
    transmit_queries,
)
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.train.checkpoint import TrainingState
from sclmkb.train.data import Batch, TrainingData, drop_entries, index_generated, load_generated
from sclmkb.train.loop import cosine_schedule, has_fast_bfloat16
from sclmkb.train.losses import contrastive_loss

Fusion = Literal["none", "extra_samples", "average", "cdfc", "mixed"]


class JsccSettings(Settings):
    """Settings of ``sclmkb-train jscc``."""

    system: str = Field(default="sc-lmkb", description="name of the system, part of every result")
    csi_source: CsiSource = "predicted"
    with_sdg: bool = True
    fusion: Fusion = "mixed"
    mixed_share: float = Field(default=0.5, ge=0, le=1, description="share of the loss on fused features")
    importance: Importance = "grad_times_input"
    receiver: Literal["literal", "dmrs", "both"] = "both"
    encoder: str = Field(default="minilm", description="frozen sentence encoder")
    model: TransceiverSettings = TransceiverSettings()
    seed: int = 0
    num_steps: PositiveInt = 900
    warmup_steps: int = Field(default=20, ge=0)
    captions_per_step: PositiveInt = 128
    pictures_per_step: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-3
    weight_decay: float = Field(default=0.02, ge=0)
    temperature: PositiveFloat = 0.07
    text_dropout: float = Field(default=0.2, ge=0, lt=1, description="share of a caption embedding's entries left out")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of matrix products and convolutions; auto: bfloat16 where the processor has it"
    )
    min_snr_db: float = -15.0
    max_snr_db: float = 25.0
    num_validations: PositiveInt = 4
    validation_snrs_db: tuple[float, ...] = Field(default=(-5.0, 10.0), min_length=1)
    save_every: PositiveInt = speed_only(50)
    threads: int | None = speed_only(None)

    @model_validator(mode="after")
    def _check(self) -> "JsccSettings":
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(f"min_snr_db = {self.min_snr_db} is above max_snr_db = {self.max_snr_db}")
        if self.pictures_per_step > self.captions_per_step:
            raise ValueError("pictures_per_step must not exceed captions_per_step: each goes with a caption")
        return self


@dataclass(frozen=True, kw_only=True)
class JsccInputs:
    """Where the knowledge base is; ``sdg`` and ``predicted`` are ``None`` where the system does without."""

    corpus: Path
    csi: Path
    sdg: Path | None = None
    predicted: Path | None = None


class JsccTask:
    """One training run in memory: data, model, and what a step does."""

    def __init__(
        self,
        settings: JsccSettings,
        data: TrainingData,
        csi: LinkCsi,
        val_split: RetrievalSplit,
        val_embeddings: Tensor,
        val_csi: LinkCsi,
    ) -> None:
        self.settings, self.data, self.csi = settings, data, csi
        self.val_split, self.val_embeddings, self.val_csi = val_split, val_embeddings, val_csi
        shape = settings.model.model_copy(update={"text_width": data.embeddings.shape[1]})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "weights"))
            self.model = Transceiver(shape)
        self.model.encoder.standardise(data.embeddings)
        self._reduced = settings.precision == "bfloat16" or (settings.precision == "auto" and has_fast_bfloat16())
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        scheduler = cosine_schedule(optimizer, settings.num_steps, settings.warmup_steps)
        self.state = TrainingState(module=self.model, optimizer=optimizer, scheduler=scheduler)

    @classmethod
    def load(cls, settings: JsccSettings, inputs: JsccInputs, sources: Mapping[str, Artifact]) -> "JsccTask":
        """Read and check everything that the run needs.

        Raises:
            UserError: if something is missing, corrupt or does not fit.
        """
        form, streams = settings.model.media.form(), settings.model.num_streams
        train = load_retrieval_split(sources["corpus"], "train", form)
        val = load_retrieval_split(sources["corpus"], "val", form)
        generated = load_generated(sources["sdg"], train.row_ids) if "sdg" in sources else [[] for _ in train.row_ids]
        flat, places = index_generated(generated)
        csi, val_csi = (
            load_link_csi(inputs.csi, inputs.predicted, split, settings.csi_source, streams)
            for split in ("train", "val")
        )
        embeddings = embed_texts(train.texts, settings.encoder)
        data = TrainingData(
            split=train,
            embeddings=embeddings,
            generated_embeddings=embed_texts(flat, settings.encoder) if flat else embeddings[:0],
            generated_of=places,
            seed=settings.seed,
        )
        return cls(settings, data, csi, val, embed_texts(val.texts, settings.encoder), val_csi)

    def train_step(self, step: int) -> dict[str, float]:
        """Do step number ``step`` and return what to log: the loss, and with fusion the mean of |w - 0.5|."""
        settings, model = self.settings, self.model
        model.train()
        batch = self.data.batch(step, settings.captions_per_step, settings.pictures_per_step)
        draw = make_generator(settings.seed, "channel", step)
        link = self._draw_link(len(batch.source), draw)
        mean = model.encoder.text_mean
        batch = batch._replace(
            source=drop_entries(batch.source, mean, settings.text_dropout, draw),
            generated=drop_entries(batch.generated, mean, settings.text_dropout, draw),
        )
        with self._mixed_precision():
            pictures = model.embed_media(MediaBatch(batch.pictures, torch.ones(len(batch.pictures), dtype=torch.long)))
        loss, measured = self._loss(batch, link, pictures, draw)
        self.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.state.optimizer.step()
        if self.state.scheduler is not None:
            self.state.scheduler.step()
        return {"loss": float(loss.detach()), **measured}

    def _loss(
        self, batch: Batch, link: LinkState, pictures: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        settings, batch_size = self.settings, len(batch.source)
        positive = batch.identity[:, None] == batch.picture_identity
        fusion = settings.fusion if bool(batch.has_generated.any()) else "none"
        if fusion in ("none", "extra_samples"):
            text = batch.source
            if fusion == "extra_samples":
                swap = torch.rand(batch_size, generator=draw) * (1 + batch.num_generated) >= 1
                text = torch.where(swap[:, None], batch.generated, text)
            return self._task_losses([self._encode(text, link)], link, pictures, positive, draw)[0], {}
        both = self._encode(torch.cat([batch.source, batch.generated]), link)
        f_s, f_g = both[:batch_size], both[batch_size:]
        half = torch.full((batch_size,), 0.5)
        weights = FusionWeights(half, half)
        if fusion != "average":
            weights = self._cdfc_weights(f_s, f_g, link, pictures, positive, draw)
        measured = {"weight_spread": float((weights.source - 0.5).abs()[batch.has_generated].mean())}
        fused = torch.where(batch.has_generated[:, None, None], normalise_power(fuse(f_s, f_g, weights)), f_s)
        if fusion == "mixed":
            alone, loss = self._task_losses([f_s, fused], link, pictures, positive, draw)
            return (1 - settings.mixed_share) * alone + settings.mixed_share * loss, measured
        return self._task_losses([fused], link, pictures, positive, draw)[0], measured

    def _cdfc_weights(
        self, f_s: Tensor, f_g: Tensor, link: LinkState, pictures: Tensor, positive: Tensor, draw: torch.Generator
    ) -> FusionWeights:
        """Return the weights (28) from the gradients (25), (26) of the loss with either feature transmitted alone."""
        importance = self.settings.importance
        leaves = [f.detach().requires_grad_() for f in (f_s, f_g)]
        losses = self._task_losses(leaves, link, pictures.detach(), positive, draw)
        gradients = torch.autograd.grad(losses[0] + losses[1], leaves)
        source, generated = (pool_importance(g, f, importance) for g, f in zip(gradients, leaves, strict=True))
        return fusion_weights(source, generated, standardise=importance != "signed")

    def _task_losses(
        self, features: list[Tensor], link: LinkState, pictures: Tensor, positive: Tensor, draw: torch.Generator
    ) -> list[Tensor]:
        """Return the loss of each way to encode the batch, each transmitted over the same link.

        With receiver ``both``, the samples are detected by the two receivers in turn, so that captions with a picture,
        which come first in a batch, go through both.
        """
        receivers: tuple[Receiver, ...] = RECEIVERS
        if self.settings.receiver != "both":
            receivers = (self.settings.receiver,)
        parts = []
        for i, receiver in enumerate(receivers):
            samples = slice(i, None, len(receivers))
            part = link.part(samples)
            sent = torch.cat([f[samples] for f in features], dim=2)  # one after the other over the same channel
            detected = self.model.convey(sent, part, receiver, draw)
            with self._mixed_precision():
                text = self.model.decode(detected, part)
            parts.append(text.reshape(len(features), -1, text.shape[1]))
        places = torch.arange(len(features[0]))
        order = torch.cat([places[i :: len(receivers)] for i in range(len(receivers))]).argsort()
        texts: Tensor = torch.cat(parts, dim=1)[:, order]
        return [contrastive_loss(text, pictures, positive, self.settings.temperature) for text in texts]

    def _encode(self, text: Tensor, link: LinkState) -> Tensor:
        with self._mixed_precision():
            return self.model.encode(text, link)

    def _mixed_precision(self) -> torch.autocast:
        """Return the context of the networks alone: the channel, its detection and the loss stay in 32 bits."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self._reduced)

    def _draw_link(self, num: int, draw: torch.Generator) -> LinkState:
        low, high = self.settings.min_snr_db, self.settings.max_snr_db
        drop = torch.randint(self.csi.num_drops, (num,), generator=draw)
        step = torch.randint(self.csi.num_steps, (num,), generator=draw)
        return self.csi.state(drop, step, low + (high - low) * torch.rand(num, generator=draw))

    def validate(self) -> dict[str, float]:
        """Measure mAP on the validation split: mean over SNRs, receivers, and same and changed wording."""
        model = self.model.eval()
        gallery = embed_gallery(model, self.val_split.media)
        receivers = RECEIVERS if self.settings.receiver == "both" else (self.settings.receiver,)
        measured: dict[str, float] = {}
        for wording in ("same", "changed"):
            chosen = self.val_split.with_wording(wording)
            if not len(chosen):
                continue
            values = []
            for snr_db in self.settings.validation_snrs_db:
                for receiver in receivers:
                    text, _ = transmit_queries(
                        model,
                        self.val_embeddings[chosen],
                        self.val_csi,
                        snr_db=snr_db,
                        receiver=receiver,
                        steps=range(self.val_csi.num_steps),
                        seed=0,
                    )
                    values.append(retrieval(text @ gallery.T, self.val_split.relevant(chosen)).mean_ap)
            measured[f"val_map_{wording}"] = sum(values) / len(values)
        return measured | {"val_map": sum(measured.values()) / len(measured)}
