"""Codecs of the wire: pure and synchronous, no Django, no I/O."""
