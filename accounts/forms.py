from datetime import timedelta
from typing import Any

from allauth.account.fields import PasswordField
from allauth.account.forms import LoginForm as AllauthLoginForm
from allauth.account.forms import SignupForm as AllauthSignupForm
from django import forms
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from knox.models import AuthToken

from accounts.models import User
from accounts.names import check_characters

TOKENS_MAX = 20


def name_field() -> forms.CharField:
    return forms.CharField(
        label="Your name",
        max_length=100,
        validators=[check_characters],
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )


class SignupForm(AllauthSignupForm):
    name = name_field()
    field_order = ["name", "email"]

    def signup(self, request: HttpRequest, user: User) -> None:
        """Called by allauth with the new user."""
        user.name = self.cleaned_data["name"]
        user.save(update_fields=["name"])

    def try_save(self, request: HttpRequest) -> tuple[User | None, HttpResponse | None]:
        try:
            with transaction.atomic():
                return super().try_save(request)
        except IntegrityError:
            # The button was pressed twice: the other request was first with this address.
            self.account_already_exists = True
            return super().try_save(request)


class LoginForm(AllauthLoginForm):
    """With a password it signs in; without one it mails a code."""

    password = PasswordField(required=False, label="Password", autocomplete="current-password", show_reset_help=True)

    def _setup_password_field(self) -> None:
        """allauth takes the field away where sign-up asks for no password; ours can be set later."""


class NameForm(forms.ModelForm):
    name = name_field()

    class Meta:
        model = User
        fields = ["name"]


class TokenForm(forms.Form):
    DAYS = {"30": "30 days", "90": "90 days", "365": "one year", "never": "as long as I keep it"}
    good_for = forms.ChoiceField(label="Good for", choices=DAYS.items(), initial="90")

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean(self) -> dict[str, Any]:
        if AuthToken.objects.filter(user=self.user).count() >= TOKENS_MAX:
            raise ValidationError(f"You have {TOKENS_MAX} tokens, which is as many as can be. Revoke one first.")
        return self.cleaned_data

    @property
    def expiry(self) -> timedelta | None:
        """How long the token is good for, None for ever."""
        days = self.cleaned_data["good_for"]
        return None if days == "never" else timedelta(days=int(days))
