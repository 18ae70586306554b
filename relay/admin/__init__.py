from relay.admin import address, catalog, channel, kept, ledger, notice, price, redemption, routing, status, token, upload, usage, wallet

__all__ = ["address", "catalog", "channel", "kept", "ledger", "notice", "price", "redemption", "routing", "status", "token", "upload", "usage", "wallet"]
