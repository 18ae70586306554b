"""Balances of channels where the vendor tells them."""

from __future__ import annotations

import pytest

from tests.support.portal import Portal
from tests.support.upstream import Call

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("provider", "path", "answer", "expected"),
    [
        (
            "deepseek",
            "/user/balance",
            {
                "is_available": True,
                "balance_infos": [
                    {"currency": "CNY", "total_balance": "0"},
                    {"currency": "USD", "total_balance": "12.50"},
                ],
            },
            "12.5 USD",
        ),
        (
            "moonshot",
            "/v1/users/me/balance",
            {"code": 0, "data": {"available_balance": 49.58894, "voucher_balance": 46.5, "cash_balance": 3.0}},
            "49.58894",
        ),
        ("openrouter", "/v1/key", {"data": {"limit": 100, "limit_remaining": 75.25, "usage": 24.75}}, "75.25 USD"),
        ("openrouter", "/v1/key", {"data": {"limit": None, "limit_remaining": None, "usage": 24.75}}, ""),
        ("siliconflow", "/v1/user/info", {"code": 20000, "data": {"balance": "0.88", "totalBalance": "88.00"}}, "88"),
        ("vercel", "/v1/credits", {"balance": "95.50", "total_used": "4.50"}, "95.5 USD"),
        ("poe", "/usage/current_balance", {"current_point_balance": 2500}, "2500 points"),
        ("novita", "/openapi/v1/billing/balance/detail", {"availableBalance": "15000"}, "1.5 USD"),
        ("deepseek", "/user/balance", {"nonsense": 1}, ""),
        # Plans tell how much of a window is used up, or left.
        (
            "zhipu_plan",
            "/api/monitor/usage/quota/limit",
            {
                "code": 200,
                "data": {
                    "limits": [
                        {"type": "TIME_LIMIT", "percentage": 90},
                        {"type": "TOKENS_LIMIT", "percentage": 12, "nextResetTime": 1796022000000},
                        {"type": "TOKENS_LIMIT", "percentage": 31},
                    ]
                },
            },
            "69 %",
        ),
        (
            "moonshot_plan",
            "/v1/usages",
            {
                "usage": {"limit": "2048", "used": "214", "remaining": "1834"},
                "limits": [
                    {
                        "window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"},
                        "detail": {"limit": "200", "used": "139", "remaining": "61"},
                    }
                ],
            },
            "30.5 %",
        ),
        (
            "minimax_plan",
            "/v1/api/openplatform/coding_plan/remains",
            {
                "model_remains": [
                    {
                        "model_name": "MiniMax-M3",
                        "current_interval_total_count": 1500,
                        "current_interval_usage_count": 1245,
                    },
                    {"model_name": "speech", "current_interval_total_count": 0, "current_interval_usage_count": 0},
                ],
                "base_resp": {"status_code": 0, "status_msg": "success"},
            },
            "83 %",
        ),
        (
            "opencode_go",
            "/v1/usage",
            {
                "usage": {
                    "rolling": {"status": "ok", "percent": 40, "resetsAt": "2026-11-30T10:00:00.000Z"},
                    "weekly": {"status": "ok", "percent": 61, "resetsAt": "2026-12-07T00:00:00.000Z"},
                    "monthly": {"status": "ok", "percent": 30, "resetsAt": "2026-12-14T00:00:00.000Z"},
                }
            },
            "39 %",
        ),
    ],
)
def test_balances_where_the_vendor_tells_them(
    live: Portal, provider: str, path: str, answer: object, expected: str
) -> None:
    from relay.channels.health_checks import refresh_balances

    asked: list[str] = []

    async def vendor(call: Call) -> None:
        asked.append(call.path)
        await call.reply(200, answer)

    channel = live.channel(provider=provider)
    live.upstream.scripts[""] = vendor
    try:
        assert refresh_balances(channel) == (1 if expected else 0)
    finally:
        del live.upstream.scripts[""]
    assert asked == [path]
    key = channel.keys.get()
    shown = f"{key.balance.normalize():f} {key.balance_currency}".strip() if key.balance is not None else ""
    assert shown == expected
