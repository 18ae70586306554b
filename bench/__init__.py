"""Measures the portal beside its floors and its peers. `make bench` runs it; docs/performance.md explains the figures."""
