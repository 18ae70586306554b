"""How vendors are shown in the admin: in forms and filters."""

from __future__ import annotations

import pytest
from django.test import Client

from relay.models import Channel

pytestmark = pytest.mark.shared


def test_many_vendors_are_shown_by_group_and_only_those_in_use_in_filters(staff: Client) -> None:
    form = staff.get("/admin/relay/channel/add/").content.decode()
    select = form.split('<select name="provider"')[1].split("</select>")[0]
    assert "unfold-admin-autocomplete" in select, "it has a field to search in"
    clouds = select.split('<optgroup label="Clouds">')[1].split("</optgroup>")[0]
    assert 'value="snowflake"' in clouds and 'value="groq"' not in clouds
    address = "https://{account}.snowflakecomputing.com/api/v2/cortex/v1"
    assert f"<li>Snowflake Cortex: <code>{address}</code></li>" in form
    guide = staff.get("/admin/setup/channel/").content.decode()
    assert '<optgroup label="Clouds">' in guide and f'data-form="{address}"' in guide and 'value="demo"' not in guide
    Channel.objects.create(name="Fast", provider="groq")
    Channel.objects.create(name="Near", provider="ollama")
    listed = staff.get("/admin/relay/channel/").content.decode()
    assert "provider__exact=groq" in listed and "provider__exact=cerebras" not in listed
    filtered = staff.get("/admin/relay/channel/?provider__exact=groq").content.decode()
    assert ">Fast" in filtered and ">Near" not in filtered
    assert staff.get("/admin/relay/failurerule/?provider__exact=groq").status_code == 200
