"""Coding agents: a scripted model for them, what they hear, recordings of their requests."""
