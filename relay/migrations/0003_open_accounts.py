"""Accounts for the users and tokens of an installation that had none yet. What worked before goes on working: their balances are unlimited."""

from decimal import Decimal

from django.db import migrations

FOR_EVER = 10_000_000


def open_accounts(apps, schema_editor):
    Account = apps.get_model("relay", "LedgerAccount")
    User = apps.get_model("accounts", "User")
    Token = apps.get_model("relay", "Token")
    Account.objects.bulk_create(
        (Account(key=f"wallet:{pk}", kind="wallet", user_id=pk, limited=False, last_day=FOR_EVER) for pk in User.objects.values_list("pk", flat=True)), batch_size=500, ignore_conflicts=True
    )
    Account.objects.bulk_create(
        (
            Account(key=f"quota:{pk}", kind="quota", user_id=user_id, token_id=pk, limited=False, last_day=FOR_EVER)
            for pk, user_id in Token.objects.values_list("pk", "user_id")
        ),
        batch_size=500,
        ignore_conflicts=True,
    )
    Price = apps.get_model("relay", "ModelPrice")
    for model in apps.get_model("relay", "Model").objects.filter(channels__provider="demo", prices__isnull=True).distinct():
        Price.objects.create(model=model, input=Decimal(0), output=Decimal(0), source="demo")


class Migration(migrations.Migration):
    dependencies = [("relay", "0002_money"), ("accounts", "0002_limits_and_prices")]
    operations = [migrations.RunPython(open_accounts, migrations.RunPython.noop)]
