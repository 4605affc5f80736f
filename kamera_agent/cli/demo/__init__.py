"""`kamera demo`: an agent's day of 40 turns, compared with a full prefill and a prefix cache."""
