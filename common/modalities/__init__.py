"""Kinds of media: what their files are, how they are checked, decoded, kept in memory."""
