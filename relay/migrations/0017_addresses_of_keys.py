"""Each upstream key knows for which address it was given: those there are, for the present address of their channel."""

from urllib.parse import urlsplit

from django.db import migrations, models


def _origin(url):
    try:
        parts = urlsplit(url.strip())
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}" if host and port else ""


def bind(apps, schema_editor):
    from relay.providers.vendors import VENDORS

    Channel, ApiKey = apps.get_model("relay", "Channel"), apps.get_model("relay", "ApiKey")
    database = schema_editor.connection.alias
    for channel in Channel.objects.using(database).only("provider", "base_url", "proxy_url"):
        vendor = VENDORS.get(channel.provider)
        own = vendor.base_url if vendor is not None else ""
        there = _origin(channel.base_url or own)
        seen_by = _origin(channel.proxy_url) if channel.proxy_url and not there.startswith("https:") else ""
        name = f"vendor {channel.provider}" if own and there == _origin(own) else there
        ApiKey.objects.using(database).filter(channel=channel).update(
            given_for=f"{name} via {seen_by}" if seen_by else name
        )


class Migration(migrations.Migration):
    dependencies = [("relay", "0016_right_to_earnings")]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="given_for",
            field=models.CharField(default="", editable=False, max_length=700),
        ),
        migrations.RunPython(bind, migrations.RunPython.noop),
    ]
