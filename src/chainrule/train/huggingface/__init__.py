"""Folders in Hugging Face's format: a trained model written as one, and such a model read to go on training."""
