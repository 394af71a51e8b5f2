"""What the local Stripe keeps in its file, and how it finds its way among thousands of objects."""

from io import StringIO
from pathlib import Path

import pytest

from billing.local_stripe import store as store_module
from billing.local_stripe.store import CorruptState, Store
from buttcloud.management.commands.up import Command
from tests.support.local_stripe import DAY, RunningLocalStripe, wait_until


def names(file: Path) -> list[str]:
    """The customers that the file has."""
    return [each["name"] for each in Store(file).all("customer")]


def add(store: Store, name: str) -> None:
    store.add("customer", name=name)
    store.save_soon()


def test_a_start_moves_what_another_version_wrote_aside_and_says_so(tmp_path: Path) -> None:
    file, said = tmp_path / "local_stripe.json", StringIO()
    file.write_text('{"version": 1}')
    app = Command(stdout=said)._make_stripe(file)
    assert app.store.objects == {}
    assert not file.exists() and (tmp_path / "local_stripe.json.1").read_text() == '{"version": 1}'
    assert "begins anew" in said.getvalue() and "local_stripe.json.1 now" in said.getvalue()
    file.write_text("{")
    with pytest.raises(CorruptState):
        Command(stdout=said)._make_stripe(file)
    assert file.exists(), "it may be mended"


def test_a_small_state_is_on_disk_before_each_answer(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    with RunningLocalStripe(file) as local:
        for name in ("Ada", "Bob", "Cyd"):
            local.client.v1.customers.create({"name": name})
            assert names(file)[-1] == name


def test_a_big_state_is_written_less_often_and_all_of_it_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.json"
    seconds = iter(range(100))
    monkeypatch.setattr(store_module.time, "monotonic", lambda: next(seconds))
    store = Store(file)
    add(store, "Ada")  # Writing takes a second by this clock, so there is rest until second 11.
    add(store, "Bob")
    assert names(file) == ["Ada"]
    for _ in range(9):
        store.save_if_due()
    assert names(file) == ["Ada", "Bob"]
    add(store, "Cyd")
    assert names(file) == ["Ada", "Bob"]
    store.save()
    assert names(file) == ["Ada", "Bob", "Cyd"]


def test_what_falls_due_is_known_again_after_a_restart(tmp_path: Path) -> None:
    with RunningLocalStripe(tmp_path / "state.json") as first:
        paid = first.subscribe()
        first.client.v1.subscriptions.update(paid.id, {"cancel_at_period_end": True})
        first.subscribe()
        session = first.open_checkout(first.make_price().id)
    with RunningLocalStripe(tmp_path / "state.json") as second:
        second.advance(DAY)
        assert second.client.v1.checkout.sessions.retrieve(session.id).status == "expired"
        second.advance(31 * DAY)
        statuses = [each.status for each in second.client.v1.subscriptions.list({"status": "all"})]
        assert statuses == ["active", "canceled"]
        assert len(second.client.v1.invoices.list().data) == 3


def test_an_end_that_is_taken_back_does_not_come(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    update = local_stripe.client.v1.subscriptions.update
    now = local_stripe.app.store.now()
    update(subscription.id, {"cancel_at": now + 5 * DAY})
    update(subscription.id, {"cancel_at": ""})
    local_stripe.advance(32 * DAY)
    assert local_stripe.client.v1.subscriptions.retrieve(subscription.id).status == "active"
    assert len(local_stripe.client.v1.invoices.list().data) == 2, "the renewal behind it still came"
    update(subscription.id, {"cancel_at": now + 40 * DAY})
    local_stripe.advance(60 * DAY)
    ended = local_stripe.client.v1.subscriptions.retrieve(subscription.id)
    assert (ended.status, ended.ended_at) == ("canceled", now + 40 * DAY)
    assert len(local_stripe.client.v1.invoices.list().data) == 2, "and none after the end"


def test_a_card_is_listed_with_whom_it_belongs_to(local_stripe: RunningLocalStripe) -> None:
    v1 = local_stripe.client.v1
    ada, bob = (v1.customers.create({"name": name}).id for name in ("Ada", "Bob"))
    card = v1.payment_methods.attach("pm_card_visa", {"customer": ada}).id
    assert [each.id for each in v1.payment_methods.list({"customer": ada})] == [card]
    v1.payment_methods.detach(card)
    v1.payment_methods.attach(card, {"customer": bob})
    assert v1.payment_methods.list({"customer": ada}).data == []
    assert [each.id for each in v1.payment_methods.list({"customer": bob})] == [card]
    assert local_stripe.app.store.of_customer("payment_method", ada) == []


def test_events_can_be_read_bit_by_bit(local_stripe: RunningLocalStripe) -> None:
    """As the sweep reads them: a type, since a moment, page by page, while new ones come."""
    events, create = local_stripe.client.v1.events, local_stripe.client.v1.customers.create
    create({"name": "before"})
    local_stripe.advance(100)
    since = local_stripe.app.store.now()
    for name in "abcde":
        create({"name": name})
    local_stripe.make_price()
    first = events.list({"types": ["customer.created"], "created": {"gte": since}, "limit": 3})
    create({"name": "new"})
    rest = events.list(
        {"types": ["customer.created"], "created": {"gte": since}, "limit": 3, "starting_after": first.data[-1].id}
    )
    assert [each.data.object["name"] for each in [*first.data, *rest.data]] == list("edcba")
    assert (first.has_more, rest.has_more) == (True, False)


def test_an_event_says_how_many_webhooks_it_waits_for(local_stripe: RunningLocalStripe) -> None:
    for port in (7, 9):
        local_stripe.client.v1.webhook_endpoints.create({"url": f"http://127.0.0.1:{port}/", "enabled_events": ["*"]})
    last = local_stripe.client.v1.webhook_endpoints.list().data[0].id
    local_stripe.client.v1.customers.create({"name": "Ada"})
    wait_until(lambda: not local_stripe.app.webhooks.waiting(), "all tries to fail")
    assert local_stripe.client.v1.events.list().data[0].pending_webhooks == 2
    local_stripe.client.v1.webhook_endpoints.delete(last)
    assert local_stripe.client.v1.events.list().data[0].pending_webhooks == 1
