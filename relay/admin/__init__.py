from relay.admin import address, catalog, channel, kept, ledger, notice, price, redemption, routing, token, upload, usage, wallet

__all__ = ["address", "catalog", "channel", "kept", "ledger", "notice", "price", "redemption", "routing", "token", "upload", "usage", "wallet"]
