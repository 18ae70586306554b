from relay.admin.channels import address, channel, model, parts, routing
from relay.admin.help import status
from relay.admin.money import bills, budget, ledger, notice, price, redemption
from relay.admin.people import chatgpt_account, group, staff_key, token, user
from relay.admin.records import usage
from relay.admin.storage import responses, upload

__all__ = [
    "address",
    "bills",
    "budget",
    "channel",
    "chatgpt_account",
    "group",
    "ledger",
    "model",
    "notice",
    "parts",
    "price",
    "redemption",
    "responses",
    "routing",
    "staff_key",
    "status",
    "token",
    "upload",
    "usage",
    "user",
]
