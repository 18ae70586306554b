"""Pages for users. All queries are limited to the data of the signed-in user."""
