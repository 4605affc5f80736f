"""Small models of six backbones, trained on the tasks of the pocket model with small screens."""
