"""`kamera demo`: an agent's 16 turns, measured against a full prefill and a prefix cache."""
