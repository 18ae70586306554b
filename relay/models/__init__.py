from relay.models.adoption import Adoption
from relay.models.allowed_upstream import AllowedUpstream
from relay.models.batch import Batch, BatchLine
from relay.models.bill import BalanceReading, BillingKey, UpstreamBill
from relay.models.blocked_address import BlockedAddress
from relay.models.budget import Budget
from relay.models.cache_switch import CacheSwitch
from relay.models.catalog import ChannelModel, Model, ModelAlias, ModelPermission
from relay.models.channel import ApiKey, Channel
from relay.models.channel_event import ChannelEvent
from relay.models.chatgpt_account import ChatGPTAccount
from relay.models.client_secret import ClientSecret
from relay.models.conversation import Conversation, ConversationItem, StoredResponse
from relay.models.cooldown import Cooldown
from relay.models.diagnosis import Diagnosis
from relay.models.error_text import ErrorText
from relay.models.failure_rule import FailureRule
from relay.models.imported import ImportedDay, ImportedRow, Installation
from relay.models.incident import Incident
from relay.models.job_fault import JobFault
from relay.models.lease import Lease
from relay.models.ledger import LedgerAccount, LedgerEntry, Reservation
from relay.models.notice import Notice, NoticeSettings
from relay.models.pool import Pool
from relay.models.price import ModelPrice
from relay.models.proof import BooksProof
from relay.models.realtime_call import RealtimeCall
from relay.models.redemption import RedemptionBatch, RedemptionCode
from relay.models.refused_request import RefusedRequest
from relay.models.rollup import ChannelDay, KeyDay, MonthSum, RemovedUsage, RollupMark, TallyDay, UserDay
from relay.models.session import SessionPart, SessionSum
from relay.models.token import Token
from relay.models.upload import Upload, UploadSession
from relay.models.usage import UsageRecord
from relay.models.worker import Worker

__all__ = [
    "Adoption",
    "AllowedUpstream",
    "ApiKey",
    "BalanceReading",
    "Batch",
    "BatchLine",
    "BillingKey",
    "BlockedAddress",
    "BooksProof",
    "Budget",
    "CacheSwitch",
    "Channel",
    "ChannelDay",
    "ChannelEvent",
    "ChannelModel",
    "ChatGPTAccount",
    "ClientSecret",
    "Conversation",
    "ConversationItem",
    "Cooldown",
    "Diagnosis",
    "ErrorText",
    "FailureRule",
    "ImportedDay",
    "ImportedRow",
    "Incident",
    "Installation",
    "JobFault",
    "KeyDay",
    "Lease",
    "LedgerAccount",
    "LedgerEntry",
    "Model",
    "ModelAlias",
    "ModelPermission",
    "ModelPrice",
    "MonthSum",
    "Notice",
    "NoticeSettings",
    "Pool",
    "RealtimeCall",
    "RedemptionBatch",
    "RedemptionCode",
    "RefusedRequest",
    "RemovedUsage",
    "Reservation",
    "RollupMark",
    "SessionPart",
    "SessionSum",
    "StoredResponse",
    "TallyDay",
    "Token",
    "Upload",
    "UploadSession",
    "UpstreamBill",
    "UsageRecord",
    "UserDay",
    "Worker",
]
