"""The hallucination filter."""
