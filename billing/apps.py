from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"

    def ready(self) -> None:
        from billing import gateway, handlers  # noqa: F401  (handlers listen from their import on)

        gateway.connect()
