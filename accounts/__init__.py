"""People: users, groups, what they did. Imports nothing of the project but `portal.lib`."""
