"""Traces of requests for OpenTelemetry, which is imported where they are on."""
