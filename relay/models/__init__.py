from relay.models.address import AllowedUpstream, BlockedAddress
from relay.models.catalog import ChannelModel, Model, ModelPermission
from relay.models.channel import ApiKey, Channel
from relay.models.token import Token
from relay.models.upload import Upload
from relay.models.usage import UsageRecord

__all__ = [
    "AllowedUpstream",
    "ApiKey",
    "BlockedAddress",
    "Channel",
    "ChannelModel",
    "Model",
    "ModelPermission",
    "Token",
    "Upload",
    "UsageRecord",
]
