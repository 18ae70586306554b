"""What is known of upstreams: addresses, authentication, quirks. Pure: no Django, no I/O but the demo's own answers."""
