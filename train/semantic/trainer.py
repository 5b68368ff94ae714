"""Training the semantic transceiver: its data, and what one step does.

::

    rows of a step ─► captions, generated captions ─► text encoder ─┐
                 └──► media ─► augmentation ─► media encoder ───────┴─► objective ─► loss ─► AdamW

The encoders' work is shared by the processes and cut into pieces; link and loss see the whole batch, in each process.
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import LinkCsi, LinkState, load_link_csi
from sclmkb.common.models.encoders.base import MediaEncoder
from sclmkb.common.models.encoders.text import TextBatch
from sclmkb.common.models.transceiver import Transceiver, build_transceiver, embed_gallery
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.common.tasks.trained import JsccSettings, TrainedSystem
from sclmkb.train.engine.checkpoint import TrainingState, trained_tensors
from sclmkb.train.engine.devices import reduce_gradients, share_statistics
from sclmkb.train.engine.loop import cosine_schedule
from sclmkb.train.engine.shared_pass import SharedPass
from sclmkb.train.semantic.data import Draw, TrainingData, drop_entries, index_generated
from sclmkb.train.semantic.generated import load_generated
from sclmkb.train.semantic.holdout import load_splits
from sclmkb.train.semantic.inputs import JsccInputs
from sclmkb.train.semantic.objective import Objective, Pairs
from sclmkb.train.semantic.texts import Texts
from sclmkb.train.semantic.validation import Validation

_FIRST_LOOK = 2048
"""So many captions say how the embeddings of a tuned encoder are standardised."""


class JsccTraining:
    """One training run: data and channels of the training split, model, and what a step does.

    ``kept`` is whose media encoder is used as it is, so that media are embedded once; by default one is trained.

    Raises:
        UserError: if the processes cannot share a step's media evenly, or an encoder cannot be loaded or does not fit.
    """

    def __init__(
        self,
        settings: JsccSettings,
        data: TrainingData,
        texts: Texts,
        csi: LinkCsi,
        validation: Validation,
        accelerator: Any,
        kept: TrainedSystem | None = None,
    ) -> None:
        self.settings, self.data, self.texts, self.accelerator = settings, data, texts, accelerator
        self.csi, self.validation = csi, validation
        processes = accelerator.num_processes
        if settings.media_per_step % processes:
            raise UserError(f"media_per_step = {settings.media_per_step} is no multiple of the {processes} processes")
        media = data.split.media
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "weights"))
            self.model = build_transceiver(settings.model, settings.text, media.shape)
            self.criterion = settings.task_object.criterion(settings, data.split.num_identities)
        self.model.encoder.standardise(self._first_look())
        if kept is None:
            self.model.media.standardise(media)
        else:
            self.model.media = _kept_encoder(kept, self.model)
        if processes > 1:
            share_statistics(self.model)
        self.model.to(accelerator.device)
        self.criterion.to(accelerator.device)
        self._embedded = embed_gallery(self.model.eval(), media) if kept is not None else None
        self.objective = Objective(settings, self.model, self.criterion, accelerator)
        self.state = self._start()

    @classmethod
    def load(
        cls,
        settings: JsccSettings,
        inputs: JsccInputs,
        sources: Mapping[str, Artifact],
        accelerator: Any,
        kept: TrainedSystem | None = None,
    ) -> "JsccTraining":
        """Read and check everything that the run needs: of corpus and CSI the splits ``train`` and ``val`` alone.

        Raises:
            UserError: if something is missing, corrupt or does not fit.
        """
        form, streams = settings.model.media.form(), settings.model.num_streams
        with accelerator.main_process_first():  # what is decoded and embedded once, the first process does
            train, val = load_splits(sources["corpus"], form, settings.holdout_share, settings.task_object.inputs)
            generated: list[list[str]] = [[] for _ in train.row_ids]
            if "sdg" in sources:
                generated = load_generated(sources["sdg"], train.row_ids, settings.captions)
            flat, places = index_generated(generated)
            texts = Texts(settings.text, train.texts, flat)
            Texts(settings.text, val.texts, [])  # for validation, which finds them in the cache
        csi, val_csi = (
            load_link_csi(inputs.csi, inputs.predicted, split, settings.csi_source, streams, settings.link)
            for split in ("train", "val")
        )
        data = TrainingData(
            split=train,
            generated_of=places,
            seed=settings.seed,
            captions_per_identity=settings.captions_per_identity,
            generated_per_caption=settings.generated_per_caption,
        )
        validation = Validation(settings, val, val_csi.to(accelerator.device), accelerator)
        return cls(settings, data, texts, csi.to(accelerator.device), validation, accelerator, kept)

    def train_step(self, step: int) -> dict[str, float]:
        """Do step number ``step`` and return what to log: the loss, and with fusion the mean of |w - 0.5|.

        What is drawn depends on nothing but the step and the seed.
        """
        self.model.train()
        settings, state = self.settings, self.state
        rows = self.data.draw(step, settings.captions_per_step, settings.media_per_step)
        draw = make_generator(settings.seed, "channel", step)
        link = self._draw_link(len(rows.caption), draw)
        media, media_pass = self._embed_media(rows)
        text, text_pass = self._embed_texts(rows)
        pairs = self._pairs(rows, text, media, draw)
        loss, measured = self.objective.loss(pairs, link, draw)
        if not loss.isfinite():
            raise UserError(
                f"the loss is {float(loss.detach())} at step {step}: set a lower learning_rate, and start afresh"
            )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        whole = [p for p in parameters if p.grad is not None]
        reduce_gradients(self.accelerator, whole, "mean")  # each process has the gradient of the whole batch
        for encoders in (media_pass, text_pass):
            if encoders is not None:
                encoders.backward()
        known = set(map(id, whole))
        reduce_gradients(self.accelerator, [p for p in parameters if id(p) not in known], "sum")
        state.optimizer.step()
        state.scheduler.step()
        return {"loss": float(loss.detach()), **measured}

    def validate(self) -> dict[str, float]:
        """Measure the task on the validation split."""
        return self.validation.measure(self.model)

    def _pairs(self, rows: Draw, text: Tensor, media: Tensor, draw: torch.Generator) -> Pairs:
        """Put together what a step compares; ``text`` holds the sources, then the generated captions in their order."""
        batch_size, width = rows.generated.shape
        device, has = self.accelerator.device, rows.generated >= 0
        source = text[:batch_size]
        generated = source[:, None].expand(-1, width, -1)
        if has.any():
            generated = generated.clone()
            generated[has.to(device)] = text[batch_size:]
        mean, share = self.model.encoder.text_mean, self.settings.text_dropout
        return Pairs(
            source=drop_entries(source, mean, share, draw),
            generated=drop_entries(generated.flatten(0, 1), mean, share, draw).view(batch_size, width, -1),
            has_generated=has.to(device),
            num_generated=rows.num_generated.to(device),
            identity=rows.identity.to(device),
            media=media,
            media_identity=rows.media_identity.to(device),
        )

    def _embed_texts(self, rows: Draw) -> tuple[Tensor, SharedPass | None]:
        """Return embeddings of a step's captions and generated captions, and the pass of the encoder if it is tuned."""
        generated = rows.generated[rows.generated >= 0] + self.texts.num_captions
        wanted = torch.cat([rows.caption, generated])
        device, text = self.accelerator.device, self.model.text
        if text is None:
            return self.texts.take(wanted).to(device), None

        def encode(chosen: Tensor) -> Tensor:
            batch = TextBatch(*(x.to(device) for x in self.texts.take_states(wanted[chosen])))
            with self.accelerator.autocast():
                embeddings: Tensor = text(batch).float()
            return embeddings

        shared = self._share(text, encode, len(wanted))
        return shared.embeddings, shared

    def _embed_media(self, rows: Draw) -> tuple[Tensor, SharedPass | None]:
        """Return embeddings of a step's media, and the pass of the encoder if it is trained."""
        device, store = self.accelerator.device, self.data.split.media
        if self._embedded is not None:
            return self._embedded[rows.media].to(device), None

        def encode(chosen: Tensor) -> Tensor:
            batch = store.modality.augment(store.take(rows.media[chosen]), rows.chance[chosen])
            with self.accelerator.autocast():
                embeddings: Tensor = self.model.media(batch.to(device))
            return embeddings

        shared = self._share(self.model.media, encode, len(rows.media))
        return shared.embeddings, shared

    def _share(self, module: Any, encode: Any, num: int) -> SharedPass:
        return SharedPass(self.accelerator, module, encode, num, self.settings.accumulate)

    def _draw_link(self, num: int, draw: torch.Generator) -> LinkState:
        low, high = self.settings.min_snr_db, self.settings.max_snr_db
        drop = torch.randint(self.csi.num_drops, (num,), generator=draw)
        step = torch.randint(self.csi.num_steps, (num,), generator=draw)
        snr_db = low + (high - low) * torch.rand(num, generator=draw)
        return self.csi.state(*(x.to(self.accelerator.device) for x in (drop, step, snr_db)))

    @torch.no_grad()
    def _first_look(self) -> Tensor:
        """Return embeddings of training captions before training."""
        text, total = self.model.text, self.texts.num_captions
        if text is None:
            return self.texts.embeddings
        rows = torch.linspace(0, total - 1, min(total, _FIRST_LOOK)).round().long()
        return torch.cat([text(self.texts.take_states(part)) for part in torch.split(rows, 64)]).float()

    def _start(self) -> TrainingState:
        settings, model = self.settings, self.model
        for tensor in trained_tensors(model).values():
            broadcast(tensor.detach())  # should machines differ in the last digit of a statistic
        low = model.pretrained_parameters()
        slow = set(map(id, low))
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in slow]
        others += list(self.criterion.parameters())
        groups: list[dict[str, Any]] = [{"params": others}]
        if low:
            groups.append({"params": low, "lr": settings.pretrained_learning_rate})
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
        return TrainingState(
            module=model,
            optimizer=optimizer,
            scheduler=cosine_schedule(optimizer, settings.num_steps, settings.warmup_steps),
            companions=dict(self.criterion.named_children()),
        )


def _kept_encoder(kept: TrainedSystem, model: Transceiver) -> MediaEncoder:
    """Return the media encoder of another run, with weights that stay as they are.

    Raises:
        UserError: if it is another kind of encoder than the model has, or takes media of another shape.
    """
    other = kept.model()
    for name in ("media", "embedding_width"):
        own, its = getattr(model.settings, name), getattr(other.settings, name)
        if own != its:
            raise UserError(f"{kept.root} was trained with model.{name} = {its}, this run has {own}: set the same")
    if other.media_shape != model.media_shape:
        raise UserError(
            f"{kept.root} takes media of shape {list(other.media_shape)}, the corpus has {list(model.media_shape)}:"
            " name a checkpoint of this corpus"
        )
    encoder: MediaEncoder = other.media.requires_grad_(False)
    return encoder
