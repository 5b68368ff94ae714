"""Encoders of captions and of media, to embeddings of unit length in one space."""
