"""Filling a store with the chunks of a library of images and clips, by one process, several, or tasks on Ray."""
