"""Errors and costs of every supported backbone, at a small size."""
