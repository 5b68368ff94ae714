"""A search as one picture: what was found over the link, what without a channel, and the symbols that arrived."""

import textwrap
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl

mpl.use("svg")

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from sclmkb.common.artifacts.files import replacing
from sclmkb.evaluate.search.items import Items
from sclmkb.evaluate.search.search import Found, Hit

_COLUMNS = 5
_HIT = "#00785a"
_MOST_SYMBOLS = 512
_CELL, _DRAWN, _HEADER, _TITLE, _SIDE = 2.05, 1.4, 0.85, 0.35, 3.4  # heights, and the width beside the grid [inches]


def draw_found(found: Found, items: Items, out: Path) -> None:
    """Write a PNG file of what a search found in a gallery."""
    columns = min(_COLUMNS, max(1, len(found.hits)))
    rows = -(-len(found.hits) // columns)
    wide = items.split.media.modality.figure_width
    width, height = max(columns * wide, 5.0) + _SIDE, _HEADER + 2 * (_TITLE + rows * _CELL)
    figure = plt.figure(figsize=(width, height), dpi=110, facecolor="white")

    def text(x: float, down: float, words: str, **style: Any) -> None:
        figure.text(x / width, 1 - down / height, words, va="center", parse_math=False, **style)

    def axes(x: float, down: float, across: float, tall: float) -> Axes:
        return cast(Axes, figure.add_axes((x / width, 1 - (down + tall) / height, across / width, tall / height)))

    text(0.15, 0.3, f"“{textwrap.shorten(found.query, 110, placeholder='…')}”", fontsize=15)
    text(0.15, 0.62, f"{found.system}: {found.conditions}", fontsize=9.5, color="#5b6470")
    blocks = (
        ("no link" if found.channel == "none" else f"over the link at {found.snr_db:g} dB", found.hits),
        (f"without a channel ({found.kept} of {len(found.hits)} are found over the link too)", found.without_channel),
    )
    for block, (title, hits) in enumerate(blocks):
        start = _HEADER + block * (_TITLE + rows * _CELL)
        text(0.15, start + _TITLE / 2, title, fontsize=11, weight="bold")
        for place, hit in enumerate(hits):
            down = start + _TITLE + place // columns * _CELL + 0.2
            _hit(axes(0.15 + place % columns * wide, down, wide - 0.2, _DRAWN), place + 1, hit, items)
    _constellation(axes(width - _SIDE + 0.55, _HEADER + _TITLE, 2.6, 2.6), found)
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)


def _hit(axis: Axes, rank: int, hit: Hit, items: Items) -> None:
    axis.imshow(items.draw(hit.index), interpolation="antialiased")
    axis.set_axis_off()
    axis.set_anchor("W")
    mark = " ✓" if hit.is_described else ""
    colour = _HIT if hit.is_described else "#1c2024"
    axis.set_title(f"{rank}.  {hit.score:.3f}{mark}", fontsize=9, loc="left", color=colour, pad=3)
    words = textwrap.shorten(hit.caption or hit.identity, 70, placeholder="…")
    below = "\n".join(textwrap.wrap(words, 32)[:2])
    axis.text(0, -0.04, below, transform=axis.transAxes, fontsize=8, va="top", parse_math=False)


def _constellation(axis: Axes, found: Found) -> None:
    """Draw sent and received symbols; a line joins each pair."""
    sent, received = found.sent.flatten()[:_MOST_SYMBOLS], found.received.flatten()[:_MOST_SYMBOLS]
    pairs = torch.stack([sent, received])
    axis.plot(pairs.real.numpy(), pairs.imag.numpy(), color="#c3c9d0", linewidth=0.8, zorder=1)
    axis.scatter(sent.real, sent.imag, s=34, facecolors="none", edgecolors="#0072b2", label="sent", zorder=2)
    axis.scatter(received.real, received.imag, s=16, color="#d55e00", marker="x", label="received", zorder=3)
    reach = 1.1 * float(torch.cat([pairs.real, pairs.imag]).abs().max().clamp(min=1e-3))
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    streams, uses = found.sent.shape
    error = f"symbol error {found.symbol_error_db:.1f} dB"
    axis.set_title(f"{streams} streams × {uses} channel uses\n{error}", fontsize=9)
    axis.axhline(0, color="#e4e4e4", linewidth=0.8, zorder=0)
    axis.axvline(0, color="#e4e4e4", linewidth=0.8, zorder=0)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
