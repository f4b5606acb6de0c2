"""Trained models in files: recognised by content, checked before anything is allocated, read into a LayerSpec."""
