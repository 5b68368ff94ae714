"""AudioCaps: ten seconds of sound of YouTube videos with captions, one CSV file per split.

::

    ROOT/{train,val,test}.csv           audiocap_id,youtube_id,start_time,caption
    ROOT/{train,val,test}/NAME.wav      or below audio/; NAME is youtube_id, Yyoutube_id or youtube_id_start_time

The identity is the sound; val and test have five captions each, in rows of their own. The sounds are not part of the
data: who has fetched them from YouTube puts them there, as .wav, .flac, .ogg or .mp3. Those that are gone are problems.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.reader import Entry
from sclmkb.generate.corpora.records import Place, RecordReader

_COLUMNS = ("youtube_id", "start_time", "caption")
_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


class AudioCaps(RecordReader):
    """AudioCaps with the sounds that a user has."""

    name = "audiocaps"
    title = "AudioCaps"
    address = "https://github.com/cdjkim/audiocaps"
    licence = "captions: MIT (Kim et al. 2019); sounds: those of their authors on YouTube"
    modality = "audio"
    merges_rows = True

    def tables(self) -> Sequence[tuple[Path, str]]:
        """Return the CSV file of each split."""
        return [(self.root / f"{split}.csv", split) for split in self.settings.splits]

    def media_folders(self) -> Sequence[Path]:
        """Return the folder of each split's sounds."""
        return [self._folder(split) for split in self.settings.splits]

    def entry(self, record: dict[str, Any], place: Place) -> Entry:
        """Return a caption as an entry of its sound."""
        if missing := [name for name in _COLUMNS if name not in record]:
            path = self.root / place.file
            raise UserError(f"{path} has no column '{missing[0]}': it is not a table of {self.title}")
        video = record["youtube_id"].strip()
        item = f"{place.split}/{video}" if video else ""
        return Entry(
            item_id=item,
            identity=item,
            group=video,
            split=place.split,
            captions=((0, record["caption"]),),
            media=self._sound(place.split, video, record["start_time"].strip()),
        )

    def _folder(self, split: str) -> Path:
        beside, below = self.root / split, self.root / "audio" / split
        return below if below.is_dir() else beside

    def _sound(self, split: str, video: str, start: str) -> str:
        """Return the file of a sound; if there is none, what its name should be."""
        stems = (video, f"Y{video}", f"{video}_{start}")
        there = self._files.get(split, {})
        name = next((there[stem] for stem in stems if stem in there), f"{video}.wav")
        return f"{self.relative(self._folder(split))}/{name}"

    @cached_property
    def _files(self) -> Mapping[str, Mapping[str, str]]:
        """The names of the sounds by split and name without suffix."""
        folders = {split: self._folder(split) for split in self.settings.splits}
        return {
            split: {path.stem: path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES}
            for split, folder in folders.items()
            if folder.is_dir()
        }
