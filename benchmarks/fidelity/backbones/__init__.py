"""Small models of eight backbones, trained on the tasks of the pocket model with small screens."""
