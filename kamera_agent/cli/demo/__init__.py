"""`kamera demo`: 16 turns of an agent, compared with a full prefill and a prefix cache."""
