"""Training the multi-task transceiver: a batch of every task per step, each through its own draw of the channel.

::

    rows ─► features, prompts ─► model ─► uses ─► power 1 ─► channel ─► model ─► loss of the task
                                                                                └► weighted sum ─► AdamW

Source: "Multi-Task Semantic Communications via Large Models", Phase I (Section III). The paper states no schedule.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.models.lam.build import build_mtsc
from sclmkb.common.models.lam.codecs.base import CODECS
from sclmkb.common.models.lam.language_model import make_vocabulary
from sclmkb.common.models.lam.rate import LossPredictor, draw_groups
from sclmkb.common.models.lam.system import RECONSTRUCT, Item, groups_of
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.common.tasks.media.base import TextTask
from sclmkb.common.tasks.media.data import PICTURE_SIZE, TaskData
from sclmkb.common.tasks.media.receive import carry, outputs_of
from sclmkb.common.tasks.media.trained import MEDIA_TASKS, MtscSettings
from sclmkb.common.tasks.reconstruct import picture_loss
from sclmkb.train.engine.checkpoint import TrainingState
from sclmkb.train.engine.devices import reduce_gradients, share_statistics
from sclmkb.train.engine.loop import cosine_schedule
from sclmkb.train.multitask.data import Rows, Splits

_FIRST_LOOK = 512
"""So many samples say how features are standardised and how the memory is scaled."""


class MtscTraining:
    """One training run: data, model, and what a step does.

    Args:
        settings: of the run.
        data: of every task.
        accelerator: this process's device, and the other processes.

    Raises:
        UserError: if the language model is not there or of another kind, or batches do not divide by the processes.
    """

    def __init__(self, settings: MtscSettings, data: Splits, accelerator: Any) -> None:
        self.settings, self.data, self.accelerator = settings, data, accelerator
        for name in settings.tasks:
            if settings.of_task(name).batch_size % accelerator.num_processes:
                raise UserError(f"{name}.batch_size is no multiple of the {accelerator.num_processes} processes")
        samples = [part.samples for part in data.train.values() if part.samples is not None]
        prompts = [prompt for part in samples for prompt in part.prompts]
        written = [text for part in samples for texts in part.references for text in texts]
        parts = list(data.train.values())
        first = next((part for part in parts if part.samples is not None), parts[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "weights"))
            vocabulary = make_vocabulary(settings.used_model.language_model, prompts, written)
            picture_size = PICTURE_SIZE if RECONSTRUCT in settings.tasks else None
            looks: dict[str, list[Tensor]] = {}
            for part in parts:
                if part.samples is not None or settings.model.codec.takes_context:
                    seen = part.features.take(part.some(_FIRST_LOOK) % len(part.features.item_ids))
                    looks.setdefault(part.modality, []).append(seen)
            features = {kind: (seen[0].shape[1], seen[0].shape[2]) for kind, seen in looks.items()}
            self.sizes = {"features": features, "picture_size": picture_size}
            self.model = build_mtsc(settings.used_model, vocabulary, features, picture_size)
        for kind, seen_of in looks.items():
            self.model.projection_of(kind).standardise(torch.cat(seen_of))
        if looks:
            self.model.scale_memory(self._item(first, first.some(_FIRST_LOOK // 8)))
        if accelerator.num_processes > 1:
            share_statistics(self.model)
        self.model.to(accelerator.device)
        self._rows = {
            name: Rows(part, settings.of_task(name), settings.seed, name) for name, part in data.train.items()
        }
        self.state = self._start()

    @property
    def vocabulary(self) -> Any:
        """Entries of the vocabulary, for the checkpoint."""
        return list(self.model.language_model.vocabulary.entries)

    def train_step(self, step: int) -> Mapping[str, float]:
        """Do step number ``step`` and return the losses; what is drawn depends on the step and the seed alone."""
        self.model.train()
        total, measured = torch.zeros((), device=self.accelerator.device), {}
        for name in self.settings.tasks:
            losses = self._task_losses(name, step)
            measured[f"loss_{name}"] = float(losses.values.detach().mean())
            total = total + self.settings.of_task(name).weight * losses.values.mean() + losses.error
        if not total.isfinite():
            raise UserError(
                f"the loss is {float(total.detach())} at step {step}: set a lower learning_rate, and start afresh"
            )
        self.state.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.state.optimizer.param_groups for p in group["params"]]
        reduce_gradients(self.accelerator, parameters, "mean")
        own = {id(p) for p in self.model.loss_predictors.parameters()}  # they shall not shorten the model's step
        nn.utils.clip_grad_norm_([p for p in parameters if id(p) not in own], 1.0)
        self.state.optimizer.step()
        if self.state.scheduler is not None:
            self.state.scheduler.step()
        return {"loss": float(total.detach()), **measured}

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Measure every task on its validation split; ``val_score`` is the mean of the main measures, scaled."""
        self.model.eval()
        found: dict[str, float] = {}
        for name, part in self.data.val.items():
            task, rows = MEDIA_TASKS[name], part.some(self.settings.validation_items)
            values = []
            for snr_db in self.settings.validation_snrs_db:
                generator = make_generator(self.settings.seed, "validation", name, str(snr_db))
                outputs, _ = outputs_of(self.model, self.data.val_channel, part, rows, name, snr_db, generator)
                values.append(float(task.score(outputs, part.references(rows))[task.main].mean()))
            found[f"val_{name}_{task.main}"] = sum(values) / len(values)
        scores = [found[f"val_{name}_{MEDIA_TASKS[name].main}"] / MEDIA_TASKS[name].scale for name in self.data.val]
        return {**found, "val_score": sum(scores) / len(scores)}

    def _task_losses(self, name: str, step: int) -> "_Losses":
        settings, part, device = self.settings, self.data.train[name], self.accelerator.device
        rows = self._rows[name].of_step(step)
        chance = make_generator(settings.seed, "channel", name, step)
        spread = settings.max_snr_db - settings.min_snr_db
        snr_db = settings.min_snr_db + spread * torch.rand(len(rows), generator=chance)
        kept = draw_groups(settings.model.rate, len(rows), groups_of(settings.model)[name], chance)
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        rows, snr_db, kept = rows[mine], snr_db[mine].to(device), kept[mine].to(device)
        noise = make_generator(settings.seed, "noise", name, step, self.accelerator.process_index)
        if isinstance(MEDIA_TASKS[name], TextTask):
            return self._text_losses(part, rows, snr_db, kept, name, noise, step)
        return self._picture_losses(part, rows, snr_db, kept, noise)

    def _text_losses(
        self,
        part: TaskData,
        rows: Tensor,
        snr_db: Tensor,
        kept: Tensor,
        name: str,
        noise: torch.Generator,
        step: int,
    ) -> "_Losses":
        assert part.samples is not None
        model, device = self.model, self.accelerator.device
        texts = [part.samples.references[i] for i in rows.tolist()]
        chosen = [of[(step + i) % len(of)] for i, of in enumerate(texts)]
        labels = model.language_model.vocabulary.numbers(chosen, self.settings.model.max_text_tokens).to(device)
        with self.accelerator.autocast():
            fused = model.fuse(self._item(part, rows))
            uses = model.send(fused, snr_db, name)
        arrived, sent = carry(uses.only(kept), self.data.train_channel, snr_db, noise)
        with self.accelerator.autocast():
            memory, there = model.receive(arrived, sent, snr_db, name)
            losses = model.text_loss(memory, there, labels)
        expected = model.expected_losses(uses, fused, snr_db, name)
        return _Losses(losses, _error(expected, kept, losses))

    def _picture_losses(
        self, part: TaskData, rows: Tensor, snr_db: Tensor, kept: Tensor, noise: torch.Generator
    ) -> "_Losses":
        model = self.model
        pictures = part.picture_values(rows).to(self.accelerator.device)
        with self.accelerator.autocast():
            with torch.no_grad():  # the codec reads the fusion center and does not train it
                fused = model.fuse(self._item(part, rows)) if self.settings.model.codec.takes_context else None
            uses = model.send_pictures(pictures, fused, snr_db)
        arrived, _ = carry(uses.only(kept), self.data.train_channel, snr_db, noise)
        with self.accelerator.autocast():
            got = model.receive_pictures(arrived, snr_db)
        losses = picture_loss(got, pictures)
        expected = model.expected_losses(uses, fused, snr_db, RECONSTRUCT)
        return _Losses(losses, _error(expected, kept, losses))

    def _item(self, part: TaskData, rows: Tensor) -> Item:
        item = part.item(rows, self.model.language_model.vocabulary, self.settings.model.max_prompt_tokens)
        return item.to(self.accelerator.device)

    def _start(self) -> TrainingState:
        settings, trained = self.settings, {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        own = {n for n in trained if n.startswith(("language_model.encoder", "language_model.decoder"))}
        codec = {n for n in trained if n.startswith("codec.")}
        predictors = {n for n in trained if n.startswith("loss_predictors.")}
        codec_rate = settings.codec_rate or CODECS[settings.model.codec.kind].learning_rate
        groups: list[dict[str, Any]] = [
            {
                "params": [p for n, p in trained.items() if n not in own | codec | predictors],
                "lr": settings.learning_rate,
            },
            {"params": [p for n, p in trained.items() if n in own], "lr": settings.language_model_rate},
            {"params": [p for n, p in trained.items() if n in codec], "lr": codec_rate},
            {"params": [p for n, p in trained.items() if n in predictors], "lr": LossPredictor.learning_rate},
        ]
        optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], weight_decay=settings.weight_decay, fused=True
        )
        scheduler = cosine_schedule(optimizer, settings.num_steps, settings.warmup_steps)
        return TrainingState(module=self.model, optimizer=optimizer, scheduler=scheduler)


class _Losses(NamedTuple):
    """Of one task: the loss of each sample ``[B]``, and by how much its transmitter expects another one."""

    values: Tensor
    error: Tensor


def _error(expected: Tensor | None, kept: Tensor, losses: Tensor) -> Tensor:
    """Return the mean squared error of the losses that were expected for the groups that were sent."""
    if expected is None:
        return torch.zeros((), device=losses.device)
    return nn.functional.mse_loss(expected.gather(1, kept.sum(1, keepdim=True) - 1)[:, 0], losses.detach().float())
