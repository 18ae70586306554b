"""Helpers without Django that import nothing else from this project."""
