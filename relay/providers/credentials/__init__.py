"""Ways to sign requests to upstreams, one a file."""
