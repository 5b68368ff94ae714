import math
from collections import defaultdict
from statistics import fmean

import numpy as np
import pytest
from media_files import smooth_pictures
from pydantic import ValidationError

from sclmkb.common.errors import UserError
from sclmkb.common.link.uses import UsesChannelSettings
from sclmkb.common.tasks.media.quality import psnr_db
from sclmkb.evaluate.separate.media import pictures as module
from sclmkb.evaluate.separate.media.blocks import BlockErrors
from sclmkb.evaluate.separate.media.codecs import CODECS
from sclmkb.evaluate.separate.media.files import CodedPictures
from sclmkb.evaluate.separate.media.pictures import (
    DigitalLink,
    DigitalSettings,
    PictureRow,
    as_tensor,
    digital_pictures,
)
from sclmkb.evaluate.separate.modern import ModernScheme

KNOWN, SENT = smooth_pictures(6, seed=1), smooth_pictures(12)
RICIAN = UsesChannelSettings(kind="rician", k_factor=1)
SMALL = {"schemes": [[4, 0.33], [4, 0.66], [16, 0.75]], "codecs": ["webp"]}
USES = 500


class Theory(BlockErrors):
    """Shares of failures that fall from 1 to 0 between 1 and 3 dB above Shannon's limit."""

    def share(self, scheme: ModernScheme, uses: int, snr_db: float) -> float:
        limit_db = 10 * math.log10(2 ** (scheme.rate * scheme.bits_per_symbol) - 1)
        return min(1.0, max(0.0, (limit_db + 3 - snr_db) / 2))


def small(**fields: object) -> DigitalSettings:
    return DigitalSettings.model_validate(SMALL | fields)


@pytest.fixture(scope="module")
def rows() -> list[PictureRow]:
    return digital_pictures(SENT, USES, [20.0, -8.0, 1.0, 5.0], choose_on=KNOWN, settings=small(), errors=Theory())


def means(rows: list[PictureRow], packing: str, headers: bool) -> list[float]:
    found = defaultdict(list)
    for row in rows:
        if (row.packing, row.headers) == (packing, headers):
            found[row.snr_db].append(row.psnr)
    return [fmean(found[snr_db]) for snr_db in sorted(found)]


@pytest.mark.parametrize("packing", ["single", "packed"])
def test_a_better_channel_brings_better_pictures(rows: list[PictureRow], packing: str) -> None:
    with_headers, without = means(rows, packing, True), means(rows, packing, False)
    assert with_headers == sorted(with_headers)
    assert with_headers[-1] > with_headers[0] + 5
    assert without[-1] >= with_headers[-1]


def test_each_picture_has_a_row_and_its_uses(rows: list[PictureRow]) -> None:
    assert len(rows) == 2 * 2 * 4 * 12
    assert {row.uses for row in rows} == {USES}
    assert {row.scheme for row in rows if row.snr_db == 20} == {"webp-16qam-ldpc0.75"}
    assert all(0 <= row.ms_ssim <= 1 for row in rows)


def test_what_cannot_be_decoded_is_a_failure_with_the_mean_colour(rows: list[PictureRow]) -> None:
    lost = [row for row in rows if row.snr_db == -8]
    assert all(row.failed for row in lost)
    grey = np.broadcast_to(KNOWN.mean((0, 1, 2)).round(), SENT.shape)
    psnr = 10 * np.log10(255**2 / np.square(grey - SENT).mean((1, 2, 3)))
    assert [row.psnr for row in lost[:12]] == pytest.approx(psnr.tolist(), abs=1e-3)
    assert not any(row.failed for row in rows if row.snr_db == 20)


def test_what_does_not_fit_is_a_failure_however_good_the_channel() -> None:
    rough = np.random.default_rng(0).integers(0, 256, SENT[:2].shape, dtype=np.uint8)
    sent = np.concatenate([SENT[:2], rough])
    uses = max(len(CODECS["webp"].encode(picture, 0)) for picture in SENT[:2]) * 8 // 3 + 1
    found = digital_pictures(sent, uses, [30.0], choose_on=KNOWN, settings=small(packings=["single"]), errors=Theory())
    assert [row.failed for row in found if row.headers] == [False, False, True, True]


def test_failures_and_gains_belong_to_a_picture_and_not_to_its_place() -> None:
    settings = small(packings=["single"], channel=RICIAN)
    link = DigitalLink(KNOWN, USES, settings, Theory())
    whole = link.send(CodedPictures(SENT, "single"), False, 6.0, range(12))
    assert 0 < whole.failed.sum() < 12
    part = link.send(CodedPictures(SENT[4:9], "single"), False, 6.0, range(4, 9))
    assert (part.pictures == whole.pictures[4:9]).all()
    assert (part.failed == whole.failed[4:9]).all()
    other = link.send(CodedPictures(SENT, "single"), False, 6.0, range(100, 112))
    assert (other.failed != whole.failed).any()


def test_the_scheme_is_the_best_of_those_there_are() -> None:
    """No single scheme has a higher expected PSNR on the pictures that it is chosen on."""
    link = DigitalLink(KNOWN, USES, small(packings=["single"]), Theory())
    chosen = link.choose("single", True, 5.0)
    coded, true = CodedPictures(KNOWN, "single"), as_tensor(KNOWN)
    expected = {}
    for scheme in link.schemes:
        decoded, fits = coded.within(CODECS["webp"], round(scheme.rate * scheme.bits_per_symbol * USES), True)
        arrives = (1 - Theory().share(scheme, USES, 5.0)) * fits
        grey = psnr_db(as_tensor(np.broadcast_to(link.mean_colour, KNOWN.shape)), true).numpy()
        expected[scheme] = float((arrives * psnr_db(as_tensor(decoded), true).numpy() + (1 - arrives) * grey).mean())
    assert chosen.scheme == max(expected, key=expected.__getitem__)
    assert chosen.scheme != link.schemes[0]


def test_with_real_codes_pictures_arrive() -> None:
    pytest.importorskip("sionna.phy")
    settings = small(packings=["single"], schemes=[[16, 0.75]], num_words=10)
    found = digital_pictures(SENT[:4], USES, [0.0, 14.0], choose_on=KNOWN, settings=settings)
    assert [row.failed for row in found] == 2 * (4 * [True] + 4 * [False])
    assert min(row.psnr for row in found if row.snr_db == 14) > 25


def test_bad_input_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="over fading set packings to"):
        small(channel=RICIAN)
    with pytest.raises(UserError, match="no 5G LDPC code is as short as 2 complex uses"):
        DigitalLink(KNOWN, 2, small())
    monkeypatch.setattr(module, "has_sionna", lambda: False)
    with pytest.raises(UserError, match="pip install sionna-no-rt"):
        DigitalLink(KNOWN, USES, small())
