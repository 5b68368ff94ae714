"""The layouts that ``sclmkb-gen corpus`` reads, by name."""

from collections.abc import Mapping

from sclmkb.common.corpora.bandai_motion import BandaiMotion
from sclmkb.common.corpora.base import Reader
from sclmkb.common.corpora.clotho import Clotho
from sclmkb.common.corpora.esc10 import Esc10
from sclmkb.common.corpora.kit_ml import KitMl
from sclmkb.common.corpora.pedes import CuhkPedes, IcfgPedes, RstpReid
from sclmkb.common.corpora.table import Table

LAYOUTS: Mapping[str, type[Reader]] = {
    layout.name: layout for layout in (CuhkPedes, IcfgPedes, RstpReid, KitMl, BandaiMotion, Clotho, Esc10, Table)
}
