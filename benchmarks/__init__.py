"""Benchmarks of kamera_agent. `python -m benchmarks.NAME --help` describes one of them."""
