"""Small models of real Hugging Face classes, made on the spot."""
