"""The servers that the portal depends on: how they are reached, and how long each is waited for."""
