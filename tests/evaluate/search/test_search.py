from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import must_run, refusal
from measuring import save_jscc
from PIL import Image

from sclmkb.common.errors import UserError
from sclmkb.evaluate.measure.systems import OpenSystem
from sclmkb.evaluate.search.figure import draw_found
from sclmkb.evaluate.search.search import MAX_CHARACTERS, check_query, format_found, search

Open = Callable[..., OpenSystem]


def colours(image: Image.Image) -> int:
    return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))


def test_a_clear_channel_finds_what_no_channel_finds_and_noise_does_not(open_system: Open) -> None:
    system = open_system()
    clear = search(system, "label of color 1 2 3", snr_db=60, top=7)
    assert clear.symbol_error < 1e-4
    assert [hit.index for hit in clear.hits] == [hit.index for hit in clear.without_channel]
    noisy = search(system, "label of color 1 2 3", snr_db=-20, top=7)
    assert noisy.symbol_error > 0.3
    assert noisy.without_channel != noisy.hits
    for found in (clear, noisy):
        scores = [hit.score for hit in found.hits]
        assert scores == sorted(scores, reverse=True)
        assert all(-1.001 <= score <= 1.001 for score in scores)
        assert found.sent.shape == found.received.shape == (2, 4)
        assert float(found.sent.abs().square().sum() / 4) == pytest.approx(1, abs=1e-4)


def test_what_is_shown_of_an_item_is_what_the_corpus_says(open_system: Open) -> None:
    system = open_system()
    split = system.items.split
    captions = list(zip(split.caption_identity.tolist(), split.wordings, split.texts, strict=True))
    labels = {identity: text for identity, wording, text in captions if wording == "label"}
    found = search(system, split.texts[5], snr_db=10, top=1000)
    assert len(found.hits) == len(split.item_ids)  # no more than there are
    for hit in found.hits:
        assert hit.item_id == split.item_ids[hit.index]
        assert hit.item_id.startswith(hit.identity + "-")  # as the fixture names them
        identity = int(split.media_identity[hit.index])
        assert hit.caption == labels[identity]
        assert hit.is_described == (identity == int(split.caption_identity[5]))
    assert all(hit.is_described is None for hit in search(system, "nobody says this", snr_db=10).hits)


def test_the_seed_decides_drop_step_and_noise(open_system: Open) -> None:
    system = open_system()
    found = [search(system, "some words", snr_db=0, seed=seed, receiver="dmrs") for seed in (1, 1, 2, 3, 4)]
    assert torch.equal(found[0].received, found[1].received)
    assert found[0].hits == found[1].hits
    assert len({(one.drop, one.step) for one in found}) > 1


@pytest.mark.parametrize("kind", ["motion", "audio"])
def test_motion_and_sound_are_found_and_drawn(open_system: Open, tmp_path: Path, kind: str) -> None:
    system = open_system(kind)
    found = search(system, "thing number 3", snr_db=20, top=4)
    assert {hit.is_described for hit in found.hits} <= {True, False}
    drawn = system.items.draw(found.hits[0].index)
    assert colours(drawn) > 5
    sound = system.items.sound(found.hits[0].index)
    assert (sound is not None) == (kind == "audio")
    if sound is not None:
        assert sound.media_type == "audio/wav"
        assert sound.data.startswith(b"RIFF")
    draw_found(found, system.items, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert min(grid.size) > 300
        assert colours(grid) > 20


def test_a_sentence_is_cleaned_and_its_length_limited() -> None:
    assert check_query("  a\tman \x1b[31m with\nhat\x00 ") == "a man [31m with hat"
    for empty in ("", "  \n", "\x00\x1b"):
        with pytest.raises(UserError, match="empty"):
            check_query(empty)
    check_query("x" * MAX_CHARACTERS)
    with pytest.raises(UserError, match=f"{MAX_CHARACTERS} are allowed"):
        check_query("x" * (MAX_CHARACTERS + 1))


def test_a_table_fits_the_terminal(open_system: Open) -> None:
    found = search(open_system(), "label of color 1 2 3", snr_db=10, top=6)
    for width in (80, 100, 200):
        lines = format_found(found, width).splitlines()
        ranked = [line for line in lines if line.lstrip(" *")[:1].isdigit()]
        assert len(ranked) == 6
        assert all(len(line) <= width for line in ranked)
    assert found.hits[0].item_id in format_found(found, 200)
    assert f"{found.hits[0].score:.3f}" in format_found(found, 80)


def test_the_command_prints_a_ranking_and_draws_it(write_items: Callable[[str], Any], one_text_encoder: None) -> None:
    tiny = write_items("pictures")
    folder = save_jscc(tiny.root, csi_source="predicted")  # beside the corpus: nothing else needs to be named
    save_jscc(tiny.root, system="another")
    query, search_it = "label of color 1 2 3", ["sclmkb-eval", "search", "--checkpoint"]
    said = must_run([*search_it, folder.parents[1], "--snr", "-3", query]).out
    assert f"“{query}”" in said
    assert "sc-lmkb seed 0: predicted CSI at the transmitter, literal receiver, -3 dB" in said
    assert "without a channel" in said
    assert (tiny.root / "search.png").stat().st_size > 1000
    out = tiny.root / "other" / "grid.png"
    named = ["--corpus", tiny.corpus, "--csi", tiny.csi, "--predicted", tiny.predicted, "--out", out]
    must_run([*search_it, folder, *named, "--receiver", "dmrs", query])
    assert out.exists()
    for words, message in (
        ([tiny.root / "nowhere", query], "no jscc checkpoint below"),
        ([folder, "--receiver", "best", query], "there is no receiver 'best'"),
        ([folder, "--snr", "nan", query], "out of range"),
        ([folder, "  "], "empty"),
        ([folder, "--corpus", tiny.root / "nowhere", query], "no corpus artifact"),
    ):
        assert message in refusal([*search_it, *words])
