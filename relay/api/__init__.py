"""The routes under /v1: each parses its request, calls one function of `relay.endpoints`, and returns."""
