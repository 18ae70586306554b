"""Users, groups, sign-in and the audit log. Imports nothing of the project but `portal.lib`."""
