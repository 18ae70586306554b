from django.contrib import admin

from accounts.admin import audit, group, invitation, sign_in, user
from accounts.admin.deletion import delete_rows

admin.site.add_action(delete_rows, "delete_selected")

__all__ = ["audit", "group", "invitation", "sign_in", "user"]
