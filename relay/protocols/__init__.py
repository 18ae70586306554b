"""Codecs of the APIs that clients and upstreams speak. Pure and synchronous: no Django, no I/O."""
