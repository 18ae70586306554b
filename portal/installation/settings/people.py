"""Settings: people."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from portal.installation import values


class People(BaseModel):
    """People."""

    signup: Literal["off", "invitation", "open"] = Field(
        "off",
        description=(
            "Who may make an account: nobody (`off`), those with an invitation (`invitation`, made in the admin), or "
            "everybody (`open`)."
        ),
    )
    signup_domains: values.Domains = Field(
        [],
        description=(
            "Domains of e-mail addresses that may sign up when sign-up is open, such as example.org. Empty: all."
        ),
    )
    staff_mfa: bool = Field(
        False,
        description=(
            "Staff enter the admin, and use their rights elsewhere, only with a second factor: an authenticator app "
            "or a passkey."
        ),
    )
    status_page: Literal["off", "users", "public"] = Field(
        "users",
        description=("Who may see `/status/`: nobody (`off`), those signed in (`users`), or everybody (`public`)."),
    )
    tokens_revealable: bool = Field(
        True, description=("Keep an encrypted copy of each token that its owner can have shown again.")
    )
    time_zone: values.Zone = Field(
        "UTC", description=("Time zone of dates in the pages, and of the days, weeks and months of budgets.")
    )
    email_host: values.Host = Field("", description=("Mail server for notices. Empty: none are mailed."))
    email_port: int = Field(587, ge=1, le=65535, description=("Its port."))
    email_security: Literal["starttls", "tls", "none"] = Field("starttls", description=("`starttls`, `tls` or `none`."))
    email_user: str = Field("", description=("User name there."))
    email_password: str = Field("", description=("Password there."))
    email_from: values.Sender = Field("airelays@localhost", description=("Sender of the portal's e-mails."))
    webhook_allow: values.Allowances = Field(
        [],
        description=(
            "Addresses, networks or host names outside the public Internet that webhooks of users may call, such as "
            "`10.0.0.5:8080`. What channels may use does not count for them."
        ),
    )
