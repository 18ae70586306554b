"""Processes one request: authenticates the caller, picks a channel, streams the answer, records usage and charge."""
