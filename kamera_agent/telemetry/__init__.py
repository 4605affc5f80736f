"""Telemetry: traces, drift, Prometheus metrics and OpenTelemetry spans."""
