"""SDG: captions by a language model, in waves, with every attempt kept."""
