"""Pages for the people who use the portal. Every query in here is scoped to the signed-in user."""
