from relay.models.address import AllowedUpstream, BlockedAddress
from relay.models.budget import Budget
from relay.models.catalog import ChannelModel, Model, ModelPermission
from relay.models.channel import ApiKey, Channel
from relay.models.failure_rule import FailureRule
from relay.models.ledger import LedgerAccount, LedgerEntry, Reservation
from relay.models.notice import Notice, NoticeSettings
from relay.models.pool import Pool
from relay.models.price import ModelPrice
from relay.models.redemption import RedemptionBatch, RedemptionCode
from relay.models.state import Cooldown, Lease, Worker
from relay.models.token import Token
from relay.models.upload import Upload
from relay.models.usage import UsageRecord

__all__ = [
    "AllowedUpstream",
    "ApiKey",
    "BlockedAddress",
    "Budget",
    "Channel",
    "ChannelModel",
    "Cooldown",
    "FailureRule",
    "Lease",
    "LedgerAccount",
    "LedgerEntry",
    "Model",
    "ModelPermission",
    "ModelPrice",
    "Notice",
    "NoticeSettings",
    "Pool",
    "RedemptionBatch",
    "RedemptionCode",
    "Reservation",
    "Token",
    "Upload",
    "UsageRecord",
    "Worker",
]
