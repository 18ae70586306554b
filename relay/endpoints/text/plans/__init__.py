"""Endpoints of text over a user's own plan, where they are others than over channels."""
