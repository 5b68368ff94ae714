"""CDG: channel data generation around a frozen language model, eqs. (17)-(21)."""

from sclmkb.common.models.csi.cdg import model as model
