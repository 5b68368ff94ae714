"""The layouts that ``sclmkb-gen corpus`` reads, by name."""

from collections.abc import Mapping

from sclmkb.generate.corpora.reader import Reader
from sclmkb.generate.corpora.readers.bandai_motion import BandaiMotion
from sclmkb.generate.corpora.readers.clotho import Clotho
from sclmkb.generate.corpora.readers.esc10 import Esc10
from sclmkb.generate.corpora.readers.kit_ml import KitMl
from sclmkb.generate.corpora.readers.pedes import CuhkPedes, IcfgPedes, RstpReid
from sclmkb.generate.corpora.readers.table import TableReader

LAYOUTS: Mapping[str, type[Reader]] = {
    layout.name: layout for layout in (CuhkPedes, IcfgPedes, RstpReid, KitMl, BandaiMotion, Clotho, Esc10, TableReader)
}
