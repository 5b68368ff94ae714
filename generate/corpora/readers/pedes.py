"""CUHK-PEDES, ICFG-PEDES and RSTPReid: one JSON list of pictures, each with person, split and captions.

::

    ROOT/reid_raw.json         {"split", "captions", "file_path", "processed_tokens", "id"}   CUHK-PEDES
    ROOT/ICFG-PEDES.json       the same (or ICFG_PEDES.json)                                 ICFG-PEDES, no val
    ROOT/data_captions.json    {"split", "captions", "img_path", "id"}                       RSTPReid
    ROOT/imgs/...              the pictures

The identity is the person. ICFG-PEDES comes from MSMT17, whose splits both count persons from 0, so there the
identity is split and person.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from sclmkb.generate.corpora.reader import Entry, Problem
from sclmkb.generate.corpora.records import Place, RecordReader

IMAGES = "imgs"


class Pedes(RecordReader):
    """What the three layouts share.

    Attributes:
        annotations: name of the annotation file.
        path_key: field that holds the picture's path below ``imgs/``.
        first_id: number of the first person in training.
        ids_per_split: whether each split counts its persons from the start.
    """

    annotations: ClassVar[str]
    path_key: ClassVar[str] = "file_path"
    first_id: ClassVar[int] = 0
    ids_per_split: ClassVar[bool] = False
    modality = "pictures"

    def tables(self) -> Sequence[tuple[Path, str]]:
        """Return the annotation file; its authors spell that of ICFG-PEDES in two ways."""
        other = self.root / self.annotations.replace("-", "_")
        return [(other if other.exists() else self.root / self.annotations, "")]

    def media_folders(self) -> Sequence[Path]:
        """Return the folder of the pictures."""
        return [self.root / IMAGES]

    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return a picture with its captions."""
        path, split = (str(record.get(key, "")) for key in (self.path_key, "split"))
        if reason := self._reason(record):
            return Problem(reason=reason, split=split, item=path)
        person = str(int(record["id"]))
        identity = f"{split}-{person}" if self.ids_per_split else person
        return Entry(
            item_id=path,
            identity=identity,
            group=identity,
            split=split,
            captions=tuple(enumerate(record["captions"])),
            source=path.partition("/")[0] if "/" in path else "",
            media=f"{IMAGES}/{path}",
        )

    def _reason(self, record: dict[str, Any]) -> str:
        kinds = {"split": str, self.path_key: str, "captions": list, "id": int | str}
        for key, kind in kinds.items():
            if not isinstance(record.get(key), kind):
                return f"'{key}' is missing or of another kind"
        if isinstance(record["id"], bool) or not str(record["id"]).strip().isdecimal():
            return f"the person '{record['id']}' is no number"
        return ""


class CuhkPedes(Pedes):
    """CUHK-PEDES: 40,206 pictures of 13,003 persons; 34,054, 3,078 and 3,074 pictures per split."""

    name = "cuhk-pedes"
    title = "CUHK-PEDES"
    address = "https://github.com/ShuangLI59/Person-Search-with-Natural-Language-Description"
    licence = "academic use only, on request to the authors"
    annotations = "reid_raw.json"
    first_id = 1


class IcfgPedes(Pedes):
    """ICFG-PEDES: 54,522 pictures of 4,102 persons; 34,674 for training and 19,848 for test, no validation split."""

    name = "icfg-pedes"
    title = "ICFG-PEDES"
    address = "https://github.com/zifyloo/SSAN"
    licence = "on request to the authors; the pictures are those of MSMT17 and under its terms"
    annotations = "ICFG-PEDES.json"
    ids_per_split = True


class RstpReid(Pedes):
    """RSTPReid: 20,505 pictures of 4,101 persons; 3,701, 200 and 200 persons per split."""

    name = "rstpreid"
    title = "RSTPReid"
    address = "https://github.com/NjtechCVLab/RSTPReid-Dataset"
    licence = "none stated; the pictures are those of MSMT17 and under its terms"
    annotations = "data_captions.json"
    path_key = "img_path"
