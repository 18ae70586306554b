"""`airelays`: the command line of the portal. Commands are thin; the work is in the room of its subject."""
