"""The management API: what staff do in the administration, for scripts."""
