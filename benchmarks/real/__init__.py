"""Accuracy and divergence on a text model with real weights."""
