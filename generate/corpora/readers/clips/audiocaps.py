"""AudioCaps: ten seconds of sound of YouTube videos with captions, one CSV file per split.

::

    ROOT/{train,val,test}.csv           audiocap_id,youtube_id,start_time,caption
    ROOT/{train,val,test}/NAME.wav      or below audio/; NAME is youtube_id, Yyoutube_id or youtube_id_start_time

The identity is the sound; val and test have five captions each, in rows of their own. The sounds are not part of the
data: who has fetched them from YouTube puts them there, as .wav, .flac, .ogg or .mp3. Those that are gone are problems.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.readers.base import Entry, Problem, Reader
from sclmkb.generate.corpora.readers.entries import Broken, csv_rows, read_text

_COLUMNS = ("youtube_id", "start_time", "caption")
_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


class AudioCaps(Reader):
    """AudioCaps with the sounds that a user has."""

    name = "audiocaps"
    title = "AudioCaps"
    address = "https://github.com/cdjkim/audiocaps"
    licence = "captions: MIT (Kim et al. 2019); sounds: those of their authors on YouTube"
    modality = "audio"
    merges_rows = True

    def annotation_files(self) -> Sequence[Path]:
        """Return the CSV file of each split."""
        found = [self.require(self.root / f"{split}.csv") for split in self.settings.splits]
        for split in self.settings.splits if self.settings.media != "none" else ():
            self.require(self._folder(split), is_media=True)
        return found

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the captions; each is an entry of its sound."""
        for split in self.settings.splits:
            file = f"{split}.csv"
            for row, record in csv_rows(read_text(self.root / file, self.settings.encoding)):
                if isinstance(record, Broken):
                    yield Problem(file=file, row=row, split=split, reason=record.reason)
                    continue
                if missing := [name for name in _COLUMNS if name not in record]:
                    raise UserError(
                        f"{self.root / file} has no column '{missing[0]}': it is not a table of {self.title}"
                    )
                video = record["youtube_id"].strip()
                yield Entry(
                    file=file,
                    row=row,
                    split=split,
                    item_id=f"{split}/{video}" if video else "",
                    identity=f"{split}/{video}" if video else "",
                    group=video,
                    captions=((0, record["caption"]),),
                    media=self._sound(split, video, record["start_time"].strip()),
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
