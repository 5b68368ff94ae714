"""One reader or maker a corpus layout; all give the same items and captions."""
