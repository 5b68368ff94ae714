"""The offline stage that makes the knowledge base: captions and channels."""
