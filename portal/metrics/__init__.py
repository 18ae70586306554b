"""The metrics of this host's workers, for Prometheus."""
