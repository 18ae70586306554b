"""Lists that limit something get a flag that says so, and that stays when the last row of a list is deleted."""

from django.db import migrations, models

LISTS = (("Token", "models_allowed", "models_limited"), ("Channel", "groups", "groups_limited"), ("Incident", "affected", "models_limited"))


def set_flags(apps, schema_editor):
    for model, field, flag in LISTS:
        rows = apps.get_model("relay", model)._base_manager
        rows.filter(pk__in=rows.filter(**{f"{field}__isnull": False}).values_list("pk", flat=True)).update(**{flag: True})


def close_what_would_open(apps, schema_editor):
    """Without the flags an empty list means everything: what is limited to nothing is disabled first."""
    for model, field, flag in LISTS:
        rows = apps.get_model("relay", model)._base_manager
        nothing = list(rows.filter(**{flag: True, f"{field}__isnull": True}).values_list("pk", flat=True))
        if model == "Incident":
            rows.filter(pk__in=nothing).delete()
        else:
            rows.filter(pk__in=nothing).update(enabled=False)


class Migration(migrations.Migration):
    dependencies = [("auth", "0012_alter_user_first_name_max_length"), ("relay", "0013_marker_of_streams")]

    operations = [
        migrations.AddField(
            model_name="channel",
            name="groups_limited",
            field=models.BooleanField(default=False, help_text="While this is on and no group is chosen, nobody may use the channel.", verbose_name="only for these groups"),
        ),
        migrations.AddField(
            model_name="incident",
            name="models_limited",
            field=models.BooleanField(default=False, help_text="While this is on and no model is chosen, no user sees the incident.", verbose_name="only these models"),
        ),
        migrations.AddField(
            model_name="token",
            name="models_limited",
            field=models.BooleanField(default=False, help_text="While this is on and no model is chosen, the token may use none.", verbose_name="only these models"),
        ),
        migrations.AlterField(
            model_name="channel",
            name="groups",
            field=models.ManyToManyField(blank=True, help_text="Choosing one reserves the channel for users of those chosen. None: for everyone.", related_name="channels", to="auth.group"),
        ),
        migrations.AlterField(
            model_name="incident",
            name="affected",
            field=models.ManyToManyField(blank=True, help_text="Choosing one shows the incident to users of those chosen. None: to everyone.", related_name="incidents", to="relay.model", verbose_name="models"),
        ),
        migrations.AlterField(
            model_name="token",
            name="models_allowed",
            field=models.ManyToManyField(blank=True, help_text="Choosing one limits the token to those chosen. None: every model its owner may use.", related_name="tokens", to="relay.model", verbose_name="allowed models"),
        ),
        migrations.RunPython(set_flags, close_what_would_open),
    ]  # fmt: skip
