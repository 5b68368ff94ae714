"""One row per sample and measure: what ``sclmkb-eval mtsc`` keeps, whatever the system."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from sclmkb.common.models.lam.system import RECONSTRUCT
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.media.trained import MEDIA_TASKS

ITEMS = pa.schema(
    [
        ("system", pa.string()),
        ("seed", pa.int64()),
        ("task", pa.string()),
        ("channel", pa.string()),
        ("snr_db", pa.float64()),  # per complex use
        ("inputs", pa.string()),  # "own", or "shuffled": the medium of another sample
        ("uses", pa.int64()),  # complex channel uses of the sample
        ("row_id", pa.string()),
        ("group", pa.string()),  # samples about one medium; intervals are clustered by it
        ("output", pa.string()),  # the text that the receiver wrote; empty for pictures
        ("picture", pa.binary()),  # the picture of the receiver as PNG, of some samples, beside their main measure
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)

Receive = Callable[[float], Sequence[Any]]
"""Returns what the receiver gives of all samples at an SNR [dB]: texts, or pictures of 8 bits ``[3, S, S]``."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the samples of a task go from end to end.

    Attributes:
        system: name of what sends and receives.
        seed: of its training; 0 where nothing is trained.
        task: what for.
        channel: what lies between.
        inputs: ``own`` or ``shuffled``.
        uses: complex channel uses per sample.
        data: of the task.
        rows: of the samples.
        receive: what arrives.
        max_pictures: so many samples' pictures are kept.
    """

    system: str
    seed: int
    task: str
    channel: str
    inputs: str
    uses: int
    data: TaskData
    rows: Tensor
    receive: Receive
    max_pictures: int

    def items(self, snr_db: float) -> list[dict[str, Any]]:
        """Return the rows of all samples at an SNR."""
        task, outputs = MEDIA_TASKS[self.task], self.receive(snr_db)
        scores = task.score(outputs, self.data.references(self.rows))
        same = {"system": self.system, "seed": self.seed, "task": self.task, "channel": self.channel}
        same |= {"snr_db": snr_db, "inputs": self.inputs, "uses": self.uses}
        named = list(zip(self.data.row_ids(self.rows), self.data.groups(self.rows), strict=True))
        found = []
        for measure, values in scores.items():
            for i, ((row_id, group), output, value) in enumerate(zip(named, outputs, values, strict=True)):
                row = {**same, "row_id": row_id, "group": group, "measure": measure, "value": float(value)}
                if self.task != RECONSTRUCT:
                    found.append({**row, "output": output, "picture": None})
                else:
                    kept = measure == task.main and i < self.max_pictures
                    found.append({**row, "output": "", "picture": _png(output) if kept else None})
        return found


def _png(picture: UInt8[Tensor, "3 S S"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()
