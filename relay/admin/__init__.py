from relay.admin import address, catalog, channel, token, upload, usage, wallet

__all__ = ["address", "catalog", "channel", "token", "upload", "usage", "wallet"]
