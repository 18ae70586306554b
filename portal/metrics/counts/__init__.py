"""What workers count: memory that all of them share, and what is where in it."""
