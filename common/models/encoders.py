"""Encoders of text and media by their former address."""

from sclmkb.common.models.media_encoders import PictureEncoder
from sclmkb.common.models.text_encoders import SentenceEncoder, embed_texts

__all__ = ["PictureEncoder", "SentenceEncoder", "embed_texts"]
