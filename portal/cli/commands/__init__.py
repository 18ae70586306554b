"""A command of `airelays` per file. Each has one `command`, which `portal.cli.main` loads when it is called."""
