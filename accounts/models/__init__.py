from accounts.models.audit import AuditEvent
from accounts.models.change import Change, ChangeTracked, ChangeTrackedQuerySet
from accounts.models.group import GroupSettings
from accounts.models.user import User

__all__ = ["AuditEvent", "Change", "ChangeTracked", "ChangeTrackedQuerySet", "GroupSettings", "User"]
