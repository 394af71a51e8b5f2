from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("mailer", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Hook",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=200, unique=True)),
                ("created", models.DateTimeField(auto_now_add=True)),
                (
                    "claimed_until",
                    models.DateTimeField(
                        blank=True,
                        help_text="nobody sends it before: a worker has it, or it waits for its next try",
                        null=True,
                    ),
                ),
                ("tries", models.PositiveSmallIntegerField(default=0)),
                ("error", models.CharField(blank=True, max_length=500)),
                ("sent_at", models.DateTimeField(blank=True, null=True)),
                ("about", models.CharField(help_text="what it belongs to, like a pub's id", max_length=40)),
                ("event", models.CharField(max_length=40)),
                ("url", models.CharField(max_length=500)),
                ("secret", models.CharField(help_text="signs it; deleted once it is sent", max_length=64)),
                ("body", models.TextField(help_text="JSON, just as it is signed and sent")),
            ],
            options={
                "ordering": ["-created"],
                "abstract": False,
                "indexes": [
                    models.Index(condition=models.Q(("sent_at", None)), fields=["created"], name="hook_unsent"),
                    models.Index(fields=["about", "-created"], name="hook_newest"),
                ],
            },
        ),
    ]
