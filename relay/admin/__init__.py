from relay.admin import address, catalog, channel, token, upload, usage

__all__ = ["address", "catalog", "channel", "token", "upload", "usage"]
