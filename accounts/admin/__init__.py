from accounts.admin import audit, group, sign_in, user

__all__ = ["audit", "group", "sign_in", "user"]
