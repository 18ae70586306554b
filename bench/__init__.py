"""Benchmarks of the portal against nginx, a bare relay and LiteLLM. `make bench` runs them; see docs/performance.md."""
