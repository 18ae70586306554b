"""What a request used, and its durable record."""
