from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin
from accounts.rights import may_everything
from portal.lib import net
from relay.models import AllowedUpstream, BlockedAddress


@admin.register(AllowedUpstream)
class AllowedUpstreamAdmin(BaseAdmin):
    """Addresses outside the public Internet that channels may use.

    Superusers only: each weakens the SSRF protection.
    """

    empty_text = _("Channels on a private network, such as an Ollama at 192.168.1.50:11434, need one.")
    list_display = ("address", "note", "created_at")
    search_fields = ("address", "note")

    def _superuser(self, request: HttpRequest) -> bool:
        return may_everything(request.user)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._superuser(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._superuser(request)


@admin.register(BlockedAddress)
class BlockedAddressAdmin(BaseAdmin):
    """Client addresses that sent too many invalid tokens.

    Deleting a row unblocks the address on all workers at once.
    """

    list_display = ("address", "failures", "blocked_until", "created_at")
    search_fields = ("address",)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """Find the block of a whole address as it is typed: blocks of IPv6 are networks, mapped addresses IPv4."""
        whole = net.parse_address(search_term) is not None
        return super().get_search_results(request, queryset, net.block_key(search_term) if whole else search_term)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
