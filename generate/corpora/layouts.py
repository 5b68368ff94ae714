"""The layouts that ``sclmkb-gen corpus`` reads, by name."""

from collections.abc import Mapping

from sclmkb.generate.corpora.reader import Reader
from sclmkb.generate.corpora.readers.bandai_motion import BandaiMotion
from sclmkb.generate.corpora.readers.clips.audiocaps import AudioCaps
from sclmkb.generate.corpora.readers.clips.emoji_animations import EmojiAnimations
from sclmkb.generate.corpora.readers.clips.exercises import Exercises
from sclmkb.generate.corpora.readers.clips.msrvtt import MsrVtt
from sclmkb.generate.corpora.readers.clotho import Clotho
from sclmkb.generate.corpora.readers.esc10 import Esc10
from sclmkb.generate.corpora.readers.kit_ml import KitMl
from sclmkb.generate.corpora.readers.pedes import CuhkPedes, IcfgPedes, RstpReid
from sclmkb.generate.corpora.readers.pictures.cifar10 import Cifar10
from sclmkb.generate.corpora.readers.pictures.coco import CocoCaptions, Vqav2
from sclmkb.generate.corpora.readers.pictures.daquar import Daquar
from sclmkb.generate.corpora.readers.pictures.easy_vqa import EasyVqa
from sclmkb.generate.corpora.readers.pictures.flickr8k import Flickr8k
from sclmkb.generate.corpora.readers.table import TableReader

LAYOUTS: Mapping[str, type[Reader]] = {
    layout.name: layout
    for layout in (
        *(CuhkPedes, IcfgPedes, RstpReid),
        *(KitMl, BandaiMotion),
        *(Clotho, Esc10, AudioCaps),
        *(EasyVqa, Daquar, Vqav2, CocoCaptions, Flickr8k, Cifar10),
        *(Exercises, MsrVtt, EmojiAnimations),
        TableReader,
    )
}
