"""Small models of six backbones that learn the pocket's tasks on small screens."""
