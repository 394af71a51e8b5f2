from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from allauth.account.signals import email_confirmed

        from accounts.adapter import greet

        email_confirmed.connect(greet, dispatch_uid="accounts.greet")
