"""Accuracy and divergence of the methods of reusing KV, on trained models."""
