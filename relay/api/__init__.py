"""The endpoints under /v1: declarations only. They parse, call one function of the gateway, and return."""
