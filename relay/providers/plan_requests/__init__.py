"""Requests to a person's own plan: their form, how they are signed, and what a plan refuses. No Django."""
