import pytest
import torch
from torch import Tensor

from sclmkb.common.models.lam.codecs.adjscc import AdjsccSettings
from sclmkb.common.models.lam.codecs.base import CODECS, CodecSettings, PictureCodec, build_picture_codec
from sclmkb.common.models.lam.codecs.deepjscc import DeepJsccSettings
from sclmkb.common.models.lam.codecs.film import FilmCodecSettings
from sclmkb.common.models.lam.codecs.transformer import TransformerCodecSettings

SMALL: list[CodecSettings] = [
    FilmCodecSettings(channels=8, num_blocks=1),
    DeepJsccSettings(channels=8),
    AdjsccSettings(channels=16),
    TransformerCodecSettings(width=16, num_blocks=1),
]
BLIND = "deepjscc"
"""What does not know the SNR."""


def pictures(num: int) -> Tensor:
    return torch.rand(num, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=SMALL, ids=lambda settings: settings.kind)
def codec(request: pytest.FixtureRequest) -> PictureCodec:
    torch.manual_seed(0)
    return build_picture_codec(request.param, 32, 256, 16).eval()


def test_every_codec_is_tested() -> None:
    assert {settings.kind for settings in SMALL} == set(CODECS)


def test_pictures_go_and_come_back_in_the_uses_asked_for(codec: PictureCodec) -> None:
    snr_db = torch.tensor([-5.0, 5.0, 15.0])
    symbols = codec.encode(pictures(3), snr_db, None)
    assert symbols.shape == (3, 256)
    assert symbols.is_complex()
    assert codec.decode(symbols, snr_db).shape == (3, 3, 32, 32)


def test_a_picture_is_the_same_alone_and_in_a_batch(codec: PictureCodec) -> None:
    snr_db = torch.linspace(-5, 15, 6)
    with torch.no_grad():
        whole = codec.decode(codec.encode(pictures(6), snr_db, None), snr_db)
        alone = codec.decode(codec.encode(pictures(6)[2:3], snr_db[2:3], None), snr_db[2:3])
    torch.testing.assert_close(whole[2:3], alone, atol=1e-5, rtol=1e-4)


def test_both_ends_know_the_snr_or_neither_does(codec: PictureCodec, request: pytest.FixtureRequest) -> None:
    low, high = torch.full((2,), -5.0), torch.full((2,), 15.0)
    with torch.no_grad():
        sent = [codec.encode(pictures(2), snr_db, None) for snr_db in (low, high)]
        shown = [codec.decode(sent[0], snr_db) for snr_db in (low, high)]
    blind = BLIND in request.node.name
    assert torch.equal(*sent) == blind
    assert torch.equal(*shown) == blind


def test_every_weight_is_trained(codec: PictureCodec) -> None:
    snr_db = torch.tensor([-5.0, 15.0])
    codec.decode(codec.encode(pictures(2), snr_db, None), snr_db).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in codec.parameters())


@pytest.mark.parametrize("settings", SMALL, ids=lambda settings: settings.kind)
def test_uses_that_do_not_fill_the_places_are_refused(settings: CodecSettings) -> None:
    with pytest.raises(ValueError, match="multiples of 32 complex uses, not 100"):
        build_picture_codec(settings, 32, 100, 0)
