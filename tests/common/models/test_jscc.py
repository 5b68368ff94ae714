import torch

from sclmkb.common.link.mimo import Detected
from sclmkb.common.models.jscc import JsccDecoder, JsccEncoder

B, K, M = 6, 4, 8


def test_symbols_have_unit_power_in_every_sample_and_depend_on_text_and_csi() -> None:
    encoder = JsccEncoder(text_width=24, hidden_width=32, num_streams=K, num_uses=M)
    text, snr, streams = torch.randn(B, 24), torch.zeros(B), torch.rand(B, K) * 30
    f = encoder(text, snr, streams)
    assert f.shape == (B, K, M)
    torch.testing.assert_close(f.abs().square().sum((1, 2)), torch.full((B,), float(M)))
    for other in (encoder(text + 1, snr, streams), encoder(text, snr + 9, streams), encoder(text, snr, streams + 9)):
        assert (f - other).abs().max() > 1e-4


def test_the_decoder_returns_unit_length() -> None:
    decoder = JsccDecoder(embedding_width=20, hidden_width=32, num_streams=K, num_uses=M)
    detected = Detected(torch.randn(B, K, M, dtype=torch.complex64), torch.full((B, K), -100.0))
    t = decoder(detected, torch.zeros(B))
    torch.testing.assert_close(t.norm(dim=1), torch.ones(B))


def test_texts_are_standardised_as_the_training_captions_are() -> None:
    encoder = JsccEncoder(text_width=24, hidden_width=32, num_streams=K, num_uses=M)
    text, snr, streams = torch.randn(B, 24), torch.zeros(B), torch.zeros(B, K)
    encoder.standardise(text)
    f = encoder(text, snr, streams)
    shifted = 0.01 * text + 5  # a sentence encoder's embeddings share a large part and differ little
    encoder.standardise(shifted)
    torch.testing.assert_close(encoder(shifted, snr, streams), f, atol=1e-3, rtol=1e-3)
    assert {"text_mean", "text_deviation"} <= set(encoder.state_dict())
