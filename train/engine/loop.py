"""The training loop: steps, validation, selection, logging, resuming."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sclmkb.common.console import Terminated, progress, stop_in_good_order, stop_requested
from sclmkb.common.errors import UserError
from sclmkb.common.seeds import make_generator
from sclmkb.train.engine.checkpoint import TrainingRun, TrainingState
from sclmkb.train.engine.devices import in_any_process


def fit(
    run: TrainingRun,
    state: TrainingState,
    accelerator: Any,
    *,
    num_steps: int,
    train_step: Callable[[int], Mapping[str, float]],
    validate: Callable[[], Mapping[str, float]],
    select: str,
    validate_at: frozenset[int],
    save_every: int,
    description: str,
    patience: int | None = None,
) -> dict[str, Tensor]:
    """Train from where the state is up to ``num_steps`` and return the weights that validated best.

    The state is saved every ``save_every`` steps, so that an interruption loses no more than that. It is also saved
    when a batch system asks to stop. Then all processes stop after the same step, whichever of them was asked. A
    resumed run equals an uninterrupted one as long as ``train_step(i)`` depends on nothing but i and the state.

    Args:
        run: where metrics and state go.
        state: module, optimiser and scheduler.
        accelerator: the other processes.
        num_steps: when to stop.
        train_step: does forward, backward and the optimiser's step number i, and returns what to log.
        validate: measures the module on the validation split.
        select: the measurement to select by; larger is better.
        validate_at: numbers of finished steps after which to validate.
        save_every: how often the state is saved.
        description: what the progress bar says.
        patience: stop after this many validations in a row without a new best one; default never.

    Raises:
        UserError: if the saved state is corrupt, or not the same for all processes.
        Terminated: after the state was saved, if a process was asked to stop.
    """
    if state.restore(run.state_path):
        run.rewind_metrics(state.step)
    steps = accelerator.gather(torch.tensor([state.step], device=accelerator.device))
    if int(steps.min()) != int(steps.max()):
        raise UserError(f"the processes do not all find the same {run.state_path}: all machines must see that folder")
    elapsed, began = float(state.notes.get("seconds", 0.0)), time.monotonic()

    def save() -> None:
        if run.writes:
            state.notes["seconds"] = elapsed + time.monotonic() - began
            state.save(run.state_path)
            run.curves.flush()

    with progress(description, num_steps, state.step) as ticker, stop_in_good_order():
        while True:
            if in_any_process(accelerator, stop_requested()):
                save()
                accelerator.wait_for_everyone()  # whoever waits for us ends the others once the first one is gone
                raise Terminated
            if state.step >= num_steps or (patience and state.notes.get("stale", 0) >= patience):
                break
            measured = train_step(state.step)
            state.step += 1
            record = {"step": state.step, **measured}
            if state.step in validate_at or state.step == num_steps:
                record |= validate()
                state.notes["stale"] = state.notes.get("stale", 0) + 1
                if record[select] > state.notes.get("best", -math.inf):
                    state.keep_as_best(record[select])
                    state.notes["stale"] = 0
            if len(record) > len(measured) + 1 or state.step % 10 == 0 or state.step == 1:
                run.log(record)
            if state.step % save_every == 0 or state.step == num_steps:
                save()
            ticker.advance(note=f"loss {measured['loss']:.3f} best {state.notes.get('best', 0.0):.3f}")
    state.notes["seconds"] = elapsed + time.monotonic() - began
    run.curves.close()
    return state.tensors


def in_second_half(num_steps: int, count: int) -> frozenset[int]:
    """Return ``count`` numbers of finished steps, evenly over the second half of training."""
    half = num_steps / 2
    return frozenset(round(half + half * (i + 1) / count) for i in range(count))


def rows_in_turn(total: int, step: int, count: int, *key: int | str) -> Int[Tensor, " B"]:
    """Return the rows of a step out of ``total``; each epoch goes through all in an order that follows from ``key``.

    The last batch of an epoch is filled from the next one's order.
    """
    places = torch.arange(step * count, (step + 1) * count)
    first, last = int(places[0]) // total, int(places[-1]) // total
    orders = [torch.randperm(total, generator=make_generator(*key, e)) for e in range(first, last + 1)]
    return torch.cat(orders)[places - first * total]


def cosine_schedule(
    optimizer: torch.optim.Optimizer, num_steps: int, warmup_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule that rises linearly, then falls to zero on half a cosine."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        share = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
        return float(0.5 * (1 + torch.cos(torch.tensor(min(share, 1.0) * torch.pi))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
