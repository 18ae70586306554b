"""Composition root of AIRelays Portal: settings, entry points, pages. The only package that knows all others."""

__version__ = "0.2.0"
