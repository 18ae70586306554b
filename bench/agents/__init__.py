"""Coding agents at the portal, driven as a person drives them; recordings of their sessions."""
