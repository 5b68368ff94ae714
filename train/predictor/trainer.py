"""Batches, steps and validation of a CSI predictor, on one device or several."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.metrics import mean_nmse_db, nmse
from sclmkb.common.models.csi.base import FittedPredictor
from sclmkb.common.seeds import make_generator
from sclmkb.train.engine.checkpoint import TrainingState, trained_tensors
from sclmkb.train.engine.devices import reduce_gradients
from sclmkb.train.engine.loop import cosine_schedule
from sclmkb.train.predictor.data import CsiTrainingData, draw_batch

if TYPE_CHECKING:
    from sclmkb.train.predictor.fit import CsiTrainSettings

VALIDATION_BATCH = 50
_MOST_DRAWN = 2**31


class CsiTrainer:
    """Fits a predictor by gradient descent.

    Every process draws the whole batch of a step, which depends on the step alone, and works on its share of it;
    gradients are averaged. So the number of processes changes nothing but rounding.

    Args:
        settings: how to fit.
        model: what to fit, its statistics fitted; moved to the device.
        data: training and validation drops.
        accelerator: the device, and the other processes.

    Raises:
        UserError: if the processes cannot share a batch evenly.
    """

    def __init__(
        self, settings: "CsiTrainSettings", model: FittedPredictor, data: CsiTrainingData, accelerator: Any
    ) -> None:
        self.settings, self.data, self.accelerator = settings, data, accelerator
        if settings.batch_size % accelerator.num_processes:
            raise UserError(
                f"batch_size = {settings.batch_size} is no multiple of the {accelerator.num_processes} processes"
            )
        self.model = model.to(accelerator.device)
        self.val_snr_db = torch.cat([drops.pilot_snr_db for drops in data.val])
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        parameters = self.parameters or [nn.Parameter(torch.zeros(()))]  # an optimiser needs one
        learning_rate = settings.learning_rate or model.learning_rate
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=settings.weight_decay)
        scheduler = cosine_schedule(optimizer, settings.num_steps, settings.warmup_steps)
        self.state = TrainingState(module=self.model, optimizer=optimizer, scheduler=scheduler)
        for tensor in trained_tensors(self.model).values():
            broadcast(tensor.detach())  # should machines differ in the last digit of a statistic

    def step(self, index: int) -> Mapping[str, float]:
        """Do optimiser step number ``index``; its batch, augmentation and noise depend on nothing else."""
        found = self.losses(*self.batch(make_generator(self.settings.seed, "cdg", "step", index)))
        self.state.optimizer.zero_grad()
        self.accelerator.backward(found["loss"])
        reduce_gradients(self.accelerator, self.parameters, "mean")
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.state.optimizer.step()
        self.state.scheduler.step()
        values = self.accelerator.reduce(torch.stack([value.detach().float() for value in found.values()]), "mean")
        return dict(zip(found, values.tolist(), strict=True))

    def losses(self, history: Tensor, future: Tensor, weight: Tensor, draws: Tensor) -> Mapping[str, Tensor]:
        """Return the predictor's losses for a batch, computed at the precision of the run."""
        self.model.train()
        with self.accelerator.autocast():
            return self.model.losses(history, future, weight, draws)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a batch and return this process's share of it: histories, futures, weights and a draw per drop."""
        settings = self.settings
        history, future, snr_db = draw_batch(
            self.data,
            settings.batch_size,
            settings.pilot_snr_db,
            generator,
            reverse=settings.reverse,
            conjugate=settings.conjugate,
        )
        draws = torch.randint(_MOST_DRAWN, (settings.batch_size,), generator=generator)
        parts = (history, future, self.weights(snr_db), draws)
        own = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        return tuple(part[own].to(self.accelerator.device) for part in parts)  # type: ignore[return-value]

    def weights(self, snr_db: Tensor) -> Tensor:
        """Return SNR^balance, 1 in the middle of the training range."""
        middle = sum(self.settings.pilot_snr_db) / 2
        return torch.pow(10.0, self.settings.snr_balance * (snr_db - middle) / 10)

    def validate(self) -> dict[str, float]:
        """Measure the validation split; ``val_gain_db``, the weighted NMSE below 0 dB, is what selects."""
        return self.measures(self.validation_nmse())

    def measures(self, ratios: Tensor) -> dict[str, float]:
        """Return what :meth:`validate` does, of each validation drop's NMSE."""
        weighted = self.weights(self.val_snr_db) * ratios
        return {"val_nmse_db": mean_nmse_db(ratios), "val_gain_db": -mean_nmse_db(weighted)}

    @torch.no_grad()
    def validation_nmse(self) -> Tensor:
        """Return each validation drop's NMSE; the processes share the work."""
        self.model.eval()
        accelerator = self.accelerator
        found: list[Tensor] = []
        for drops in self.data.val:
            for start in range(0, len(drops), VALIDATION_BATCH):
                chosen = slice(start, start + VALIDATION_BATCH)
                history, future = drops.history[chosen], drops.future[chosen]
                ratios = torch.zeros(len(history))
                if len(found) % accelerator.num_processes == accelerator.process_index:
                    with accelerator.autocast():
                        predicted = self.model.predict(history.to(accelerator.device), future.shape[1])
                    ratios = nmse(future, predicted.cpu())
                found.append(ratios)
        joined: Tensor = accelerator.reduce(torch.cat(found).to(accelerator.device), "sum")
        return joined.cpu()
