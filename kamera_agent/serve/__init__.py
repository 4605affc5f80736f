"""A server in front of a Kamera, for agents that speak OpenAI's Chat Completions. Needs the extra "serve"."""
