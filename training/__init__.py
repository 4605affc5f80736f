"""Training of the pocket model: the tower learns to read cells, then the decoder learns the tasks."""
