"""Everything between a client's request and an upstream's answer."""
