"""The independent trainer: reads artifacts, knows nothing of how they were made."""
