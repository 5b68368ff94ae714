"""MSR-VTT: short films with twenty captions each.

::

    ROOT/train_val_videodatainfo.json, test_videodatainfo.json      or one file of another name, all alike:
        {"videos": [{"video_id", "split"}], "sentences": [{"video_id", "caption"}]}
    ROOT/videos/ID.mp4                                              or in TrainValVideo/, TestVideo/, videos/all/

The identity is the film. Splits are the official ones (``validate`` is val). Films need OpenCV to be read.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from sclmkb.generate.corpora.reader import Entry, Problem, Reader
from sclmkb.generate.corpora.records import json_list, read_text

_FILES = (
    ("train_val_videodatainfo.json", "test_videodatainfo.json"),
    ("videodatainfo_2017.json",),
    ("MSRVTT_data.json",),
)
_FOLDERS = ("videos/all", "videos", "TrainValVideo", "TestVideo")
_SPLITS = {"validate": "val"}


class MsrVtt(Reader):
    """MSR-VTT."""

    name = "msrvtt"
    title = "MSR-VTT"
    address = "https://www.microsoft.com/en-us/research/publication/msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/"
    licence = "research use (Xu et al. 2016); films: those of their authors"
    modality = "video"

    def annotation_files(self) -> Sequence[Path]:
        """Return the files of annotations that are there."""
        there = [path for names in _FILES for name in names if (path := self.root / name).exists()]
        found = there or [self.require(self.root / name) for name in _FILES[0]]
        if self.settings.media != "none" and not self._folders:
            self.require(self.root / "videos", is_media=True)
        return found

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the films."""
        for path in self.annotation_files():
            file, text = self.relative(path), read_text(path, self.settings.encoding)
            captions: dict[str, list[object]] = {}
            for row, found in json_list(text, "sentences"):
                if isinstance(found, Problem):
                    yield Problem(file=file, row=row, reason=found.reason)
                elif not isinstance(found, dict) or not found.get("video_id"):
                    yield Problem(file=file, row=row, reason="a sentence has no 'video_id'")
                else:
                    captions.setdefault(str(found["video_id"]), []).append(found.get("caption"))
            for row, found in json_list(text, "videos"):
                if isinstance(found, Problem):
                    yield Problem(file=file, row=row, reason=found.reason)
                elif not isinstance(found, dict) or not found.get("video_id"):
                    yield Problem(file=file, row=row, reason="a video has no 'video_id'")
                else:
                    video, split = str(found["video_id"]), str(found.get("split"))
                    yield Entry(
                        file=file,
                        row=row,
                        split=_SPLITS.get(split, split),
                        item_id=video,
                        identity=video,
                        group=video,
                        captions=tuple(enumerate(captions.get(video, ()))),
                        media=self._film(f"{video}.mp4"),
                    )

    def _film(self, name: str) -> str:
        folders = self._folders or ["videos"]
        there = (folder for folder in folders if (self.root / folder / name).exists())
        return f"{next(there, folders[0])}/{name}"

    @cached_property
    def _folders(self) -> list[str]:
        return [folder for folder in _FOLDERS if (self.root / folder).is_dir()]
