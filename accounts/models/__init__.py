from accounts.models.attempt import Attempt
from accounts.models.audit import AuditEvent
from accounts.models.change import Change, ChangeTracked, ChangeTrackedQuerySet
from accounts.models.form_key import FormKey
from accounts.models.group import GroupSettings, Role
from accounts.models.invitation import Invitation
from accounts.models.limits import LIMIT_FIELDS, Limited
from accounts.models.staff_key import KeptAnswer, StaffKey
from accounts.models.user import User

__all__ = [
    "LIMIT_FIELDS",
    "Attempt",
    "AuditEvent",
    "Change",
    "ChangeTracked",
    "ChangeTrackedQuerySet",
    "FormKey",
    "GroupSettings",
    "Invitation",
    "KeptAnswer",
    "Limited",
    "Role",
    "StaffKey",
    "User",
]
