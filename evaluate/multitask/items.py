"""One row per sample and measure: what ``sclmkb-eval mtsc`` keeps, whatever the system."""

import io
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from sclmkb.common.models.lam.system import RECONSTRUCT
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.media.receive import Received
from sclmkb.common.tasks.media.trained import MEDIA_TASKS

ITEMS = pa.schema(
    [
        ("system", pa.string()),
        ("seed", pa.int64()),
        ("task", pa.string()),
        ("channel", pa.string()),
        ("snr_db", pa.float64()),  # per complex use
        ("inputs", pa.string()),  # "own", or "shuffled": the medium of another sample
        ("rate", pa.string()),  # FULL_RATE, or how the sample's uses were chosen
        ("uses", pa.float64()),  # complex channel uses of the sample, with all that is sent beside it
        ("row_id", pa.string()),
        ("group", pa.string()),  # samples about one medium; intervals are clustered by it
        ("output", pa.string()),  # the text that the receiver wrote; empty for pictures
        ("picture", pa.binary()),  # the picture of the receiver as PNG, of some samples, beside their main measure
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)


def sample_rows(
    same: Mapping[str, Any], data: TaskData, rows: Tensor, received: Received, max_pictures: int
) -> list[dict[str, Any]]:
    """Return the rows of all samples of a task that were sent in the same way.

    Args:
        same: columns that all of them share: system, seed, task, channel, SNR, inputs and rate.
        data: of the task.
        rows: of the samples.
        received: outputs and uses.
        max_pictures: so many samples' pictures are kept.
    """
    task = MEDIA_TASKS[same["task"]]
    scores = task.score(received.outputs, data.references(rows))
    samples = list(zip(data.row_ids(rows), data.groups(rows), received.uses.tolist(), received.outputs, strict=True))
    found = []
    for measure, values in scores.items():
        for i, ((row_id, group, uses, output), value) in enumerate(zip(samples, values, strict=True)):
            row = {**same, "row_id": row_id, "group": group, "uses": uses, "measure": measure, "value": float(value)}
            if same["task"] == RECONSTRUCT:
                kept = measure == task.main and i < max_pictures
                row |= {"output": "", "picture": picture_png(output) if kept else None}
            else:
                row |= {"output": output, "picture": None}
            found.append(row)
    return found


def picture_png(picture: UInt8[Tensor, "3 S S"]) -> bytes:
    """Return a picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()
