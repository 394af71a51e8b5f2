from collections.abc import Iterator
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from accounts.models import User
from pubs.models import NAME_MAX, Bot, Notices, Trouble, check_name, tidy_name


class NameForm(forms.Form):
    """A new pub's name."""

    name = forms.CharField(
        label="Name of your pub",
        max_length=NAME_MAX,
        validators=[check_name],
        help_text="Like “Harbour Garden” or the name of your group. People see this name in their apps: your pub "
        "publishes it when it first starts, and what is published can't be taken back. You can publish another name "
        "later with “Set profile”.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def create(self, owner: User) -> Bot | None:
        """The new bot, or None with the error in the form."""
        try:
            return Bot.objects.create_named(owner, self.cleaned_data["name"])
        except ValidationError as error:
            self._blame_name(error)
            return None

    def _blame_name(self, error: ValidationError) -> None:
        self.add_error("name", error.messages)


class RenameForm(NameForm):
    """Another name for a pub that there is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].help_text = (
            "This renames it here, for you. To change what people see in their apps once it has started, "
            "use “Set profile”."
        )

    def rename(self, bot: Bot) -> bool:
        """Whether it has the new name; if not, the error is in the form."""
        try:
            bot.rename(self.cleaned_data["name"])
        except ValidationError as error:
            self._blame_name(error)
            return False
        return True


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


NEWS = {
    Trouble.Kind.DOWN: "it is down, and when it is up again",
    Trouble.Kind.UNKNOWN: "its machine is out of our sight, and when we see it again",
    Trouble.Kind.CRASH_LOOP: "it crashes again and again, with the last that it wrote",
    Trouble.Kind.MEMORY: "its memory is nearly full",
    Trouble.Kind.DISK: "its disk is 80 and 95 % full",
    Notices.PAYMENT: "something happens with its payment",
}


class NoticesForm(forms.Form):
    """What an owner is told of a pub, by mail and by webhook."""

    mail = forms.MultipleChoiceField(required=False, choices=[(kind, NEWS[kind]) for kind in Trouble.Kind])
    hook = forms.MultipleChoiceField(required=False, choices=list(NEWS.items()))

    @classmethod
    def of(cls, notices: Notices) -> "NoticesForm":
        return cls(initial={"mail": notices.mailed, "hook": notices.posted})

    def rows(self) -> Iterator[dict[str, Any]]:
        """For each kind of news what it is called, and how it is told."""
        mailed, posted = self["mail"].value() or [], self["hook"].value() or []
        for kind, label in NEWS.items():
            can_choose_mail = kind != Notices.PAYMENT
            is_mailed, is_posted = kind in mailed or not can_choose_mail, kind in posted
            yield {"kind": kind, "label": label, "mail": is_mailed, "hook": is_posted, "choice": can_choose_mail}


class HookForm(forms.Form):
    """Where news of a pub are posted to."""

    url = forms.CharField(
        label="Address",
        required=False,
        max_length=500,
        help_text="Like https://example.org/pub-news. Leave it empty, and nothing is posted.",
        widget=forms.URLInput(attrs={"autocomplete": "off", "placeholder": "https://"}),
    )

    def post_to(self, notices: Notices) -> bool:
        """Whether it is the address now; if not, the error is in the form."""
        try:
            notices.post_to(self.cleaned_data["url"])
        except ValidationError as error:
            self.add_error("url", error.messages)
            return False
        return True
