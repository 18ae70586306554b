from accounts.admin import audit, group, user

__all__ = ["audit", "group", "user"]
