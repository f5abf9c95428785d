"""Models of Hugging Face, loaded from their configurations without weights."""
