from relay.admin.channels import address, channel, routing
from relay.admin.channels import model as catalog
from relay.admin.help import status
from relay.admin.money import ledger, notice, price, redemption
from relay.admin.people import token
from relay.admin.people import user as wallet
from relay.admin.records import usage
from relay.admin.storage import responses as kept
from relay.admin.storage import upload

__all__ = ["address", "catalog", "channel", "kept", "ledger", "notice", "price", "redemption", "routing", "status", "token", "upload", "usage", "wallet"]
