"""What forms say of rows that a constraint refuses; nothing changes in the database."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
        ('relay', '0019_fixed_limits_of_tokens'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterConstraint(
            model_name='budget',
            name='budget_user_or_token',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('token__isnull', True), ('user__isnull', False)), models.Q(('token__isnull', False), ('user__isnull', True)), _connector='OR'), name='budget_user_or_token', violation_error_message='Choose a user or a token, one of the two.'),
        ),
        migrations.AlterConstraint(
            model_name='budget',
            name='budget_once_per_user',
            constraint=models.UniqueConstraint(fields=('user', 'period'), name='budget_once_per_user', violation_error_message='There is such a budget already: change its limit.'),
        ),
        migrations.AlterConstraint(
            model_name='budget',
            name='budget_once_per_token',
            constraint=models.UniqueConstraint(fields=('token', 'period'), name='budget_once_per_token', violation_error_message='There is such a budget already: change its limit.'),
        ),
        migrations.AlterConstraint(
            model_name='channelmodel',
            name='channel_serves_model_once',
            constraint=models.UniqueConstraint(fields=('channel', 'model'), name='channel_serves_model_once', violation_error_message='The channel serves this model already.'),
        ),
        migrations.AlterConstraint(
            model_name='errortext',
            name='error_text_once_per_language',
            constraint=models.UniqueConstraint(fields=('code', 'language'), name='error_text_once_per_language', violation_error_message='There is such a text in this language already: change it.'),
        ),
        migrations.AlterConstraint(
            model_name='modelpermission',
            name='permission_user_or_group',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('group__isnull', True), ('user__isnull', False)), models.Q(('group__isnull', False), ('user__isnull', True)), _connector='OR'), name='permission_user_or_group', violation_error_message='Choose a user or a group, one of the two.'),
        ),
        migrations.AlterConstraint(
            model_name='modelpermission',
            name='permission_once_per_user',
            constraint=models.UniqueConstraint(fields=('model', 'user'), name='permission_once_per_user', violation_error_message='This user has such a permission already: change it.'),
        ),
        migrations.AlterConstraint(
            model_name='modelpermission',
            name='permission_once_per_group',
            constraint=models.UniqueConstraint(fields=('model', 'group'), name='permission_once_per_group', violation_error_message='This group has such a permission already: change it.'),
        ),
    ]
