"""A name makes a pub, and the pub's page asks for the payment."""

import pytest
from django.test import Client
from django.urls import reverse

from pubs.models import NAME_TAKEN, Bot
from tests.support.make import Maker

NEW = "/pubs/new/"


def post(client: Client, make: Maker, name: str) -> tuple[int, str]:
    client.force_login(make.user())
    answer = client.post(NEW, {"name": name})
    return answer.status_code, answer.content.decode()


def test_a_name_makes_a_pub_and_its_page_asks_to_pay(client: Client, make: Maker) -> None:
    make.prices()
    client.force_login(make.user())
    page = client.post(NEW, {"name": "Harbour Garden"}, follow=True)
    bot = Bot.objects.get()
    assert (bot.owner, bot.name, bot.status, bot.paid) == (make.user(), "Harbour Garden", "none", False)
    assert page.redirect_chain == [(reverse("pubs:pub", args=[bot.pk]), 302)]
    assert "Pay and start" in page.content.decode() and "€9 a month" in page.content.decode()
    assert reverse("billing:checkout", args=[bot.pk]) in page.content.decode()


def test_who_names_a_pub_reads_first_that_the_name_will_be_public(client: Client, make: Maker) -> None:
    client.force_login(make.user())
    form = client.get(NEW).content.decode()
    assert "publishes it when it first starts" in form
    assert form.index("can't be taken back") < form.index('<input type="text"')


@pytest.mark.parametrize("name", ["Κήπος", "港の庭", "حديقة", "👩‍🚀 crew", "x", "x" * 64, "Bob’s & Ann’s <pub>"])
def test_any_script_makes_a_name(client: Client, make: Maker, name: str) -> None:
    assert post(client, make, name)[0] == 302
    assert Bot.objects.get().name == name


def test_a_name_is_trimmed_and_composed(client: Client, make: Maker) -> None:
    post(client, make, "  Café ")
    assert Bot.objects.get().name == "Café"


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 65, "two\nlines", "nul\x00", "bell\x07", "back\u202ewards", "\u200d"]
)
def test_a_name_that_does_not_do_makes_nothing_and_says_why(client: Client, make: Maker, name: str) -> None:
    status, page = post(client, make, name)
    assert status == 422
    assert 'aria-invalid="true"' in page
    assert not Bot.objects.exists()


def test_the_same_name_twice_is_refused_in_words(client: Client, make: Maker) -> None:
    make.bot(name="Harbour")
    status, page = post(client, make, " Harbour")
    assert (status, Bot.objects.count()) == (422, 1)
    assert page.count(NAME_TAKEN) == 1


def test_two_owners_may_like_the_same_name(client: Client, make: Maker) -> None:
    make.bot(make.user("bob"), name="Harbour")
    assert post(client, make, "Harbour")[0] == 302


def test_the_name_of_a_deleted_pub_is_free_again(client: Client, make: Maker) -> None:
    make.bot(name="Harbour").delete_softly()
    assert post(client, make, "Harbour")[0] == 302


def test_a_name_is_shown_and_never_run(client: Client, make: Maker) -> None:
    bot = make.bot(name="<script>alert(1)</script>")
    client.force_login(make.user())
    for address in (bot.get_absolute_url(), reverse("pubs:list"), reverse("pubs:delete", args=[bot.pk])):
        assert b"<script>alert" not in client.get(address).content


def test_an_owner_without_a_pub_is_led_to_a_name(client: Client, make: Maker) -> None:
    client.force_login(make.user())
    assert f'href="{NEW}"' in client.get(reverse("pubs:list")).content.decode()
