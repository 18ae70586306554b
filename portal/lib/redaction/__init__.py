"""What must not be told in texts that others wrote: keys, the hosts and accounts of upstreams."""
