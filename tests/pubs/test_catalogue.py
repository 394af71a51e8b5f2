"""What can be asked of a pub, and what is refused before it gets near one."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from pubs import live
from pubs.catalogue import CATALOGUE, QUEUE_MAX, argument_vector, ask, checked
from pubs.models import Command
from tests.support.make import Maker

SOMEBODY = "@" + "A" * 43 + "=.ed25519"
PUB_COMMANDS = Path(__file__).parents[2] / "pub_image" / "src" / "commands.js"


def refusal(name: str, /, **data: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        checked(name, data)
    return caught.value.message_dict


def test_an_invite_has_one_use_when_nothing_is_said() -> None:
    assert checked("create_invite", {})[1] == {"uses": 1}
    assert checked("create_invite", {"uses": "", "note": "  "})[1] == {"uses": 1}


def test_typed_texts_become_whole_numbers() -> None:
    assert checked("create_invite", {"uses": "5", "note": " spring "})[1] == {"uses": 5, "note": "spring"}


@pytest.mark.parametrize("uses", [0, 10001, -1, "1.5", "many", True, [1], {"a": 1}, 1.5])
def test_uses_out_of_range_or_of_no_number_are_refused(uses: Any) -> None:
    assert "uses" in refusal("create_invite", uses=uses)


@pytest.mark.parametrize(
    "somebody",
    [
        "",
        "alice",
        "--flag",
        "; rm -rf /",
        "$(reboot)",
        "`reboot`",
        SOMEBODY + ";ls",
        "x" + SOMEBODY,
        SOMEBODY + "\n" + SOMEBODY,
        SOMEBODY[1:],
        SOMEBODY.replace("ed25519", "ed25518"),
        "@" + "A" * 44 + "=.ed25519",
        "@" + "é" * 43 + "=.ed25519",
        "A" * 10_000_000,
        None,
        ["@"],
    ],
)
@pytest.mark.parametrize("name", ["follow", "unfollow", "block", "unblock", "revoke_invite"])
def test_only_an_id_passes_as_an_id(name: str, somebody: Any) -> None:
    assert "id" in refusal(name, id=somebody)


def test_an_id_with_space_around_it_passes() -> None:
    assert checked("follow", {"id": f" {SOMEBODY}\n"})[1] == {"id": SOMEBODY}


@pytest.mark.parametrize("note", ["a\nb", "a\0b", "a\x1b[31mb", "a\u2028b", "\ud800", "x" * 201, "x" * 10_000_000])
def test_control_characters_and_long_notes_are_refused(note: str) -> None:
    assert "note" in refusal("create_invite", note=note)


@pytest.mark.parametrize("note", [["a"], {"a": 1}, True, 1.5])
def test_what_is_neither_text_nor_number_is_not_made_a_text(note: Any) -> None:
    assert refusal("create_invite", note=note) == {"note": ["Give a text or a whole number."]}


def test_a_shells_words_are_a_note_like_any_other() -> None:
    note = "--uses=9 ; $(reboot) `x` && 'y' \"z\""
    entry, args = checked("create_invite", {"note": note})
    vector = argument_vector(entry, args)
    assert vector[:2] == ["pubctl", "invite.create"]
    assert len(vector) == 3 and vector[2].startswith("{")
    assert json.loads(vector[2]) == {"uses": 1, "note": note}


def test_a_profile_needs_a_name_or_a_description() -> None:
    assert refusal("set_profile") == {"__all__": ["Give a name, a description, or both."]}
    assert refusal("set_profile", name=" ") == {"__all__": ["Give a name, a description, or both."]}
    assert checked("set_profile", {"name": "Café"})[1] == {"name": "Café"}


def test_a_description_may_have_lines_and_counts_each_break_once() -> None:
    assert checked("set_profile", {"description": "a\r\nb"})[1] == {"description": "a\nb"}
    assert checked("set_profile", {"description": "x\r\n" * 999 + "xy"})
    assert "description" in refusal("set_profile", description="a\0b")


def test_unknown_fields_are_refused_and_the_known_ones_named() -> None:
    assert "its fields: uses, note" in refusal("create_invite", use=3)["__all__"][0].lower()
    assert "It has none" in refusal("whoami", id=SOMEBODY)["__all__"][0]


def test_an_unknown_command_is_refused_and_the_known_ones_named() -> None:
    words = refusal("post", text="hello")["__all__"][0]
    assert all(name in words for name in CATALOGUE)


def test_a_field_that_was_refused_is_told_once() -> None:
    assert refusal("set_profile", name="a\nb") == {"name": ["A name has no control characters or line breaks."]}


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_pub_image_knows_every_command_word(name: str) -> None:
    word = CATALOGUE[name].command
    source = PUB_COMMANDS.read_text()
    assert any(f"\n    {spelling}" in source for spelling in (f"'{word}':", f"{word}:", f"{word},"))


def test_a_pages_fields_do_not_clash_with_each_other() -> None:
    names = [
        form.add_prefix(field) for entry in CATALOGUE.values() for form in [entry.page_form()] for field in form.fields
    ]
    assert len(names) == len(set(names)) > 5
    entry = CATALOGUE["follow"]
    assert entry.page_args({"name": "follow", "follow-id": SOMEBODY, "block-id": "x"}) == {"id": SOMEBODY}


def test_asking_writes_a_row_and_queues_it_after_commit(
    make: Maker, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    queued: list[tuple[str, Any]] = []
    monkeypatch.setattr(live.current_app, "send_task", lambda name, args=None: queued.append((name, args)))
    alice = make.user("alice")
    with django_capture_on_commit_callbacks(execute=True):
        command = ask(make.bot(alice), alice, "follow", {"id": SOMEBODY})
        assert queued == []
    assert queued == [("orchestrator.run_command", [str(command.pk)])]
    assert (command.state, command.args, command.by) == ("queued", {"id": SOMEBODY}, alice)


def test_too_many_unfinished_commands_are_refused(make: Maker) -> None:
    bot = make.bot()
    for _ in range(QUEUE_MAX):
        ask(bot, None, "whoami", {})
    with pytest.raises(ValidationError, match="still wait"):
        ask(bot, None, "whoami", {})
    ask(make.bot(), None, "whoami", {})
    Command.objects.filter(bot=bot).update(state=Command.State.DONE)
    assert ask(bot, None, "whoami", {}).state == "queued"
