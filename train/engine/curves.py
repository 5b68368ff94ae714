"""TensorBoard curves of a training run: ``tensorboard --logdir artifacts`` draws them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Curves:
    """Writes the numbers of records as curves over their ``step``; the event file appears with the first record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None
        self._first: int | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a point at the record's ``step`` to the curve of each of its other numbers."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._first)
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])

    def rewind(self, step: int) -> None:
        """Hide the points after ``step``: a resumed run makes them again."""
        self.close()
        self._first = step + 1

    def flush(self) -> None:
        """Bring what was added to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write what is not written yet."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
