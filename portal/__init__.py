"""The Django project: settings, entry points and pages. The only package that imports all others."""

__version__ = "0.2.0"
