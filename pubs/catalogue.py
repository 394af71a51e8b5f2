"""What can be asked of a pub: the one source for the page, the API and the terminal.

Nothing from outside reaches a pub but what stands here: an entry's own command word and the arguments that its
form let through, as one JSON text in an argument vector. The pub checks them again.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import transaction

from accounts.models import User
from pubs.models import NAME_MAX, Bot, Command, check_name

QUEUE_MAX = 20  # unfinished commands a bot: more is a script gone wild
# The pub gives up after 20 s, pubctl after 25 s; both say more than our own end of patience could.
PATIENCE = 30  # seconds

# Unicode's categories Cc, Cs, Zl and Zp.
CONTROL_CHARACTERS = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
feed_id = RegexValidator(
    re.compile(r"^@[A-Za-z0-9+/]{43}=\.ed25519\Z"),
    "This is not a Scuttlebutt id. An id begins with @, goes on with 44 letters, digits and signs, "
    "and ends with .ed25519.",
)


def no_control_characters(value: str) -> None:
    """Refuse what can't be seen or breaks a line; half a surrogate pair would break a feed for ever."""
    if CONTROL_CHARACTERS.search(value):
        raise ValidationError("This has control characters or line breaks in it. Take them out, please.")


def no_control_characters_but_line_breaks(value: str) -> None:
    no_control_characters(value.replace("\n", " "))


class Text(forms.CharField):
    default_validators = [no_control_characters]
    widget = forms.TextInput(attrs={"autocomplete": "off"})


class Lines(forms.CharField):
    default_validators = [no_control_characters_but_line_breaks]
    widget = forms.Textarea(attrs={"autocomplete": "off", "rows": 4})

    def to_python(self, value: Any) -> Any:
        # Browsers count a line break as one character and send two.
        return super().to_python(value.replace("\r\n", "\n") if isinstance(value, str) else value)


class FeedId(Text):
    default_validators = [feed_id]
    widget = forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "@….ed25519"})


class NoArguments(forms.Form):
    pass


class CreateInvite(forms.Form):
    uses = forms.IntegerField(
        label="Uses",
        min_value=1,
        max_value=10000,
        initial=1,
        required=False,
        help_text="How many people can join with it. 1 if you say nothing.",
        widget=forms.NumberInput(attrs={"autocomplete": "off", "inputmode": "numeric"}),
    )
    note = Text(
        label="Note",
        max_length=200,
        required=False,
        help_text="Only for you: who it is for. Nobody else sees it.",
    )

    def clean_uses(self) -> int:
        uses: int | None = self.cleaned_data["uses"]
        return 1 if uses is None else uses


class RevokeInvite(forms.Form):
    id = FeedId(label="Invite", max_length=60, help_text="The id of the invite, as “List invites” shows it.")


class SetProfile(forms.Form):
    name = forms.CharField(
        label="Name",
        max_length=NAME_MAX,
        required=False,
        help_text="What people see in their apps.",
        widget=Text.widget,
        validators=[check_name],
    )
    description = Lines(
        label="Description",
        max_length=2000,
        required=False,
        help_text="A few lines about your pub: who it is for, and its rules.",
    )

    def clean(self) -> dict[str, Any]:
        # A name that was refused is an error of its own, not a missing one.
        if not self.errors and not any(self.cleaned_data.values()):
            raise ValidationError("Give a name, a description, or both.")
        return self.cleaned_data


class Someone(forms.Form):
    id = FeedId(
        label="Id",
        max_length=60,
        help_text="The id of a person or a pub, as their app shows it on their profile.",
    )


class Block(Someone):
    reason = Text(
        label="Reason",
        max_length=500,
        required=False,
        help_text="Public, like the block itself. Leave it empty if in doubt.",
    )


@dataclass(frozen=True)
class Entry:
    """One thing that can be asked."""

    name: str  # our word, in addresses and rows
    title: str
    help: str
    command: str  # pubctl's word
    form: type[forms.Form] = NoArguments
    changes: bool = False  # publishes something that can never be taken back
    on_page: bool = True
    limit_seconds: int = PATIENCE

    def page_form(self, post: Mapping[str, Any] | None = None) -> forms.Form:
        """The form for a page. Its fields are called `<entry>-<field>`, so that many fit on one page."""
        return self.form(post, prefix=self.name)

    def page_args(self, post: Mapping[str, Any]) -> dict[str, Any]:
        """What `page_form` sent, under the plain names of the fields."""
        named = {field: f"{self.name}-{field}" for field in self.form.base_fields}
        return {field: post[key] for field, key in named.items() if key in post}


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("whoami", "Who am I", "Ask your pub for its id.", "whoami"),
        Entry(
            "status",
            "Status",
            "How your pub is: its messages, connections, members, memory and disk.",
            "status",
        ),
        Entry(
            "create_invite",
            "Create invite",
            "Make a code with which people join your pub. Your pub follows whoever uses it, for all to see.",
            "invite.create",
            CreateInvite,
        ),
        Entry(
            "list_invites",
            "List invites",
            "All invites, and how often each can still be used.",
            "invite.list",
        ),
        Entry(
            "revoke_invite",
            "Revoke invite",
            "Nobody can join with this invite any more. Those who did stay members.",
            "invite.revoke",
            RevokeInvite,
        ),
        Entry(
            "set_profile",
            "Set profile",
            "Give your pub a name or a description that people see in their apps.",
            "profile.set",
            SetProfile,
            changes=True,
        ),
        Entry(
            "follow",
            "Follow",
            "Your pub keeps this person's messages and passes them on: they become a member.",
            "follow",
            Someone,
            changes=True,
        ),
        Entry(
            "unfollow",
            "Unfollow",
            "Your pub no longer counts this person as a member.",
            "unfollow",
            Someone,
            changes=True,
        ),
        Entry(
            "block",
            "Block",
            "Your pub refuses this person and no longer follows them. Everybody can see that.",
            "block",
            Block,
            changes=True,
        ),
        Entry(
            "unblock",
            "Unblock",
            "Take a block back. To make them a member again, follow them afterwards.",
            "unblock",
            Someone,
            changes=True,
        ),
        Entry("peers", "Peers", "Who is connected to your pub right now.", "peers"),
        Entry("members", "Members", "Whom your pub follows, with their names.", "members"),
    )
}


def checked(name: str, data: Mapping[str, Any]) -> tuple[Entry, dict[str, Any]]:
    """The entry and its clean arguments, without the empty ones.

    Raises ValidationError with a `message_dict` of field → messages; "__all__" concerns no single field.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        raise ValidationError({"__all__": f"A pub knows no such command. It knows {', '.join(CATALOGUE)}."})
    errors = _odd_fields(entry, data)
    form = entry.form({key: value for key, value in data.items() if key not in errors})
    if errors or not form.is_valid():
        # What was odd is told first: that the field is then missing is only its shadow.
        raise ValidationError({**{key: list(messages) for key, messages in form.errors.items()}, **errors})
    return entry, {key: value for key, value in form.cleaned_data.items() if value not in (None, "")}


def _odd_fields(entry: Entry, data: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong before a form may look: it would pass over unknown fields, and make texts of lists."""
    known = entry.form.base_fields
    errors = {
        key: "Give a text or a whole number."
        for key, value in data.items()
        if key in known and (isinstance(value, bool) or not isinstance(value, str | int | None))
    }
    if unknown := [key for key in data if key not in known]:
        fields = f"Its fields: {', '.join(known)}." if known else "It has none."
        errors["__all__"] = f"“{entry.title}” has no field {unknown[0][:40]!a}. {fields}"
    return errors


def argument_vector(entry: Entry, args: Mapping[str, Any]) -> list[str]:
    """The command as pubctl takes it: the arguments are one JSON text, in which no option can hide."""
    return ["pubctl", entry.command, json.dumps(dict(args))]


def ask(bot: Bot, by: User | None, name: str, data: Mapping[str, Any]) -> Command:
    """Write down what is asked; a worker runs it after commit. Raises ValidationError like `checked`."""
    entry, args = checked(name, data)
    with transaction.atomic():
        # The bot's row is the turnstile: two who ask at once are counted one after the other.
        Bot.objects.select_for_update(no_key=True).get(pk=bot.pk)
        unfinished = bot.commands.filter(state__in=(Command.State.QUEUED, Command.State.RUNNING)).count()
        if unfinished >= QUEUE_MAX:
            raise ValidationError({"__all__": f"{unfinished} commands still wait for this pub. Try again in a minute."})
        return bot.ask(by, entry.name, args)
