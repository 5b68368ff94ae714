"""``sclmkb-eval search``: one sentence over the simulated link, and what it finds at the other end."""

import math
import shutil
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sclmkb.common.errors import UserError
from sclmkb.common.link.link import RECEIVERS, Receiver
from sclmkb.common.link.mimo import symbol_mse
from sclmkb.common.link.sources import Channel
from sclmkb.common.seeds import make_generator
from sclmkb.evaluate.measure.systems import OpenSystem

MAX_CHARACTERS = 300
"""Longest sentence; the text encoder reads about 100 words."""
MIN_SNR_DB, MAX_SNR_DB = -30.0, 60.0


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One item that was found.

    Attributes:
        index: its number in the gallery.
        score: cosine of its embedding and the query's.
        item_id: its name.
        identity: which identity it shows.
        caption: a caption of that identity; empty without any.
        is_described: whether the query is a caption of that identity; None if it is nobody's caption.
    """

    index: int
    score: float
    item_id: str
    identity: str
    caption: str
    is_described: bool | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a query finds, best first, and what the channel did to it; k streams, m channel uses.

    Attributes:
        query: the sentence.
        system: name of the checkpoint.
        csi: which CSI its transmitter has.
        channel: what lies in between: shards, a fading model, or none.
        receiver: which receiver.
        snr_db: SNR [dB].
        drop: number of the channel drop of the test split.
        step: future step of that drop, from 0.
        hits: what the query finds over the link.
        without_channel: what it finds when every symbol arrives as it was sent.
        symbol_error: ‖F - F^‖² / ‖F‖², linear.
        sent: F.
        received: F^.
    """

    query: str
    system: str
    csi: str
    channel: Channel
    receiver: Receiver
    snr_db: float
    drop: int
    step: int
    hits: list[Hit]
    without_channel: list[Hit]
    symbol_error: float
    sent: Complex[Tensor, "k m"]
    received: Complex[Tensor, "k m"]

    @property
    def symbol_error_db(self) -> float:
        """Symbol error in dB; no lower than -100."""
        return 10 * math.log10(max(self.symbol_error, 1e-10))

    @property
    def kept(self) -> int:
        """How many of the items found without a channel are found over the link too."""
        return len({hit.index for hit in self.hits} & {hit.index for hit in self.without_channel})

    @property
    def conditions(self) -> str:
        """What the query met, in words."""
        if self.channel == "none":
            return "no link: what is sent arrives"
        return f"{self.ends}, {self.snr_db:g} dB, {self.place}"

    @property
    def ends(self) -> str:
        """What transmitter and receiver know, in words."""
        return f"{self.csi} CSI at the transmitter, {self.receiver} receiver"

    @property
    def place(self) -> str:
        """Which channel it was, in words."""
        kind = "" if self.channel == "shards" else f"{self.channel} "
        return f"test {kind}drop {self.drop}, step {self.step + 1}"


def check_query(query: str) -> str:
    """Return a sentence without what would disturb a table.

    Raises:
        UserError: if nothing is left, or it is too long.
    """
    sentence = " ".join("".join(c if c.isprintable() else " " for c in query).split())
    if not sentence:
        raise UserError("the query is empty: write a sentence, such as 'a man with a red beard'")
    if len(sentence) > MAX_CHARACTERS:
        raise UserError(f"the query has {len(sentence)} characters: {MAX_CHARACTERS} are allowed")
    return sentence


def check_receiver(name: str) -> Receiver:
    """Return a receiver by its name.

    Raises:
        UserError: if there is none of that name.
    """
    for receiver in RECEIVERS:
        if receiver == name:
            return receiver
    raise UserError(f"there is no receiver '{name[:40]}': choose one of {', '.join(RECEIVERS)}")


@torch.no_grad()
def search(
    system: OpenSystem, query: str, *, snr_db: float, receiver: Receiver = "literal", seed: int = 0, top: int = 10
) -> Found:
    """Send a sentence over the link and rank the gallery by what arrives.

    Drop, step and noise follow from the seed alone, so that several systems on the same CSI meet the same channel.
    The first ``top`` items are returned.

    Raises:
        UserError: see :func:`check_query`; if the SNR is out of range.
    """
    query = check_query(query)
    if not MIN_SNR_DB <= snr_db <= MAX_SNR_DB:
        raise UserError(f"an SNR of {snr_db:g} dB is out of range: choose one from {MIN_SNR_DB:g} to {MAX_SNR_DB:g} dB")
    model, text = system.model, system.embed(query)
    draw = make_generator(seed, "search")
    drop = torch.randint(system.link.num_drops, (1,), generator=draw)
    step = torch.randint(system.link.num_steps, (1,), generator=draw)
    link = system.link.state(drop, step, torch.tensor([float(snr_db)]))
    sent = model.encode(text, link)
    detected = model.convey(sent, link, receiver, draw)
    arrived, known = model.decode(detected, link), model.decode(detected._replace(symbols=sent), link)
    described = system.items.described_by(query)
    return Found(
        query=query,
        system=system.name,
        csi=system.csi,
        channel=system.channel,
        receiver=receiver,
        snr_db=float(snr_db),
        drop=int(drop),
        step=int(step),
        hits=_best(system, arrived[0], top, described),
        without_channel=_best(system, known[0], top, described),
        symbol_error=float(symbol_mse(sent, detected.symbols)),
        sent=sent[0],
        received=detected.symbols[0],
    )


def format_found(found: Found, width: int | None = None) -> str:
    """Return a result as text: conditions, a ranked table, and what the query finds without a channel.

    A line has ``width`` characters, by default those of the terminal.
    """
    width = max(60, width or shutil.get_terminal_size((120, 40)).columns)
    items = max([len("item"), *(len(hit.item_id) for hit in (*found.hits, *found.without_channel))])
    names = max([len("identity"), *(len(hit.identity) for hit in found.hits)])
    left = width - 26  # what columns of numbers and gaps leave
    items, names = min(items, left * 22 // 100), min(names, left * 18 // 100)
    captions = left - 2 * items - names

    def row(rank: str, score: str, item: str, identity: str, caption: str, clear: str) -> str:
        cells = (
            f"{rank:>3}",
            f"{score:>6}",
            f"{_cut_inside(item, items):<{items}}",
            f"{_cut_inside(identity, names):<{names}}",
            f"{_cut(caption, captions):<{captions}}",
            clear,
        )
        return "  ".join(cells).rstrip()

    lines = [
        f"“{found.query}”",
        f"{found.system}: {found.conditions}",
        f"symbol error {found.symbol_error_db:.1f} dB; {found.kept} of {len(found.hits)} are found without a channel"
        " too",
        row("", "score", "item", "identity", "caption", "without a channel"),
    ]
    for rank, (hit, clear) in enumerate(zip(found.hits, found.without_channel, strict=True), start=1):
        mark = "*" if hit.is_described else ""
        beside = f"{clear.score:6.3f} {_cut_inside(clear.item_id, items)}"
        lines.append(row(f"{mark}{rank}", f"{hit.score:.3f}", hit.item_id, hit.identity, hit.caption, beside))
    if any(hit.is_described is not None for hit in found.hits):
        lines.append("* the query is a caption of this identity")
    return "\n".join(lines)


def _best(system: OpenSystem, query: Float[Tensor, " d"], top: int, described: set[int]) -> list[Hit]:
    scores, indices = (system.gallery @ query).topk(min(top, len(system.gallery)))
    items = system.items
    return [
        Hit(
            index=index,
            score=score,
            item_id=items.split.item_ids[index],
            identity=items.identities[index],
            caption=items.caption(index),
            is_described=index in described if described else None,
        )
        for score, index in zip(scores.tolist(), indices.tolist(), strict=True)
    ]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _cut_inside(text: str, length: int) -> str:
    """Cut the middle out: names often begin alike."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - half]}…{text[len(text) - half :]}"
