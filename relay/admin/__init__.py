from relay.admin import address, catalog, channel, ledger, notice, price, redemption, token, upload, usage, wallet

__all__ = ["address", "catalog", "channel", "ledger", "notice", "price", "redemption", "token", "upload", "usage", "wallet"]
