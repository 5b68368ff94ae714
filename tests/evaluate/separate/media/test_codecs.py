import struct

import numpy as np
import pytest
from media_files import smooth_pictures
from PIL import features

from sclmkb.common.errors import UserError
from sclmkb.evaluate.separate.media.codecs import CODECS, present
from sclmkb.evaluate.separate.media.files import CodedPictures, Packing, PictureFile, apart, side_by_side

NAMES = [name for name in CODECS if features.check(name)]


def error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.square(one.astype(float) - other).mean())


@pytest.mark.parametrize("name", NAMES)
def test_more_bits_buy_a_better_picture_and_never_too_many_are_taken(name: str) -> None:
    for picture in smooth_pictures(3):
        file = PictureFile(CODECS[name], picture)
        assert file.within(40, headers=True) is None
        errors = []
        for num_bits in (1200, 2400, 6000, 12000):
            for headers in (True, False):
                found = file.within(num_bits, headers)
                if found is not None:
                    assert found.num_bits(headers) <= num_bits
            errors.append(error(found.picture, picture))
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > 1.2 * errors[-1]


def test_a_webp_file_follows_from_its_coded_data() -> None:
    for picture in smooth_pictures(3, size=(24, 40)):
        file = CODECS["webp"].encode(picture, 40)
        coded = CODECS["webp"].coded(file)
        frame = coded[:3] + b"\x9d\x01\x2a" + struct.pack("<HH", 40, 24) + coded[3:]
        chunk = b"WEBPVP8 " + struct.pack("<I", len(frame)) + frame + bytes(len(frame) % 2)
        assert file == b"RIFF" + struct.pack("<I", len(chunk)) + chunk


@pytest.mark.skipif("avif" not in NAMES, reason="this Pillow lacks AVIF")
def test_avif_files_differ_in_their_coded_data_and_in_lengths_alone() -> None:
    avif = CODECS["avif"]
    files = [avif.encode(picture, 40) for picture in smooth_pictures(2)]
    coded = [avif.coded(file) for file in files]
    heads = [file.removesuffix(data) for file, data in zip(files, coded, strict=True)]
    assert len(heads[0]) == len(heads[1]) == len(files[0]) - len(coded[0])
    assert sum(a != b for a, b in zip(*heads, strict=True)) <= 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packing", ["single", "packed"])
def test_pictures_come_back_in_their_order(name: str, packing: Packing) -> None:
    given = smooth_pictures(7)
    coded = CodedPictures(given, packing)
    decoded, fits = coded.within(CODECS[name], 10**6, headers=True)
    assert fits.all()
    assert error(decoded, given) < 60
    assert error(decoded, given[::-1]) > 500
    nothing, fits = coded.within(CODECS[name], 8, headers=False)
    assert not fits.any()
    assert nothing.shape == given.shape


@pytest.mark.parametrize("num", [1, 4, 7])
def test_pictures_side_by_side_come_apart(num: int) -> None:
    given = smooth_pictures(num, size=(12, 20))
    sheet = side_by_side(given)
    assert sheet.shape[0] * sheet.shape[1] < (num + 3) * 12 * 20
    assert (apart(sheet, given.shape) == given).all()


def test_a_codec_that_pillow_lacks_is_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    assert [codec.name for codec in present(("avif", "webp"))] == ["webp"]
    assert "left out: avif, which this Pillow lacks" in "".join(capsys.readouterr())
    with pytest.raises(UserError, match="none of the codecs avif"):
        present(("avif",))
