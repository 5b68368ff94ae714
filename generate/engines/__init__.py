"""Engines that run the language model over prompts, behind one protocol."""
