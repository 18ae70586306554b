"""Leaf helpers. They import nothing from this project."""
