from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from accounts.models import User
from pubs.models import NAME_MAX, Bot, check_name, tidy_name


class NameForm(forms.Form):
    """A pub's name, for a new one or another one for the same."""

    name = forms.CharField(
        label="Name of your pub",
        max_length=NAME_MAX,
        validators=[check_name],
        help_text="Like “Harbour Garden” or the name of your group. Only you and our staff see it here; "
        "what people see in their apps you set later, as its profile.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def create(self, owner: User) -> Bot | None:
        """The new bot, or None with the error in the form."""
        try:
            return Bot.objects.create_named(owner, self.cleaned_data["name"])
        except ValidationError as error:
            self._blame_name(error)
            return None

    def rename(self, bot: Bot) -> bool:
        try:
            bot.rename(self.cleaned_data["name"])
        except ValidationError as error:
            self._blame_name(error)
            return False
        return True

    def _blame_name(self, error: ValidationError) -> None:
        self.add_error("name", error.messages)


class DeleteForm(forms.Form):
    """Deleting asks for the name: no slip of a finger does it."""

    name = forms.CharField(label="Type its name to confirm", widget=forms.TextInput(attrs={"autocomplete": "off"}))

    def __init__(self, *args: Any, bot: Bot, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bot = bot

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if tidy_name(name) != self.bot.name:
            raise ValidationError("That is not its name. Type it just as it stands above.")
        return name
