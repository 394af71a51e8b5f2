"""The local Stripe's API where a gateway could slip: errors, keys, lists, expansion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from billing.local_stripe.params import parse, read
from billing.local_stripe.store import API_VERSION, Problem, Store
from tests.support.local_stripe import RunningLocalStripe


@pytest.fixture(scope="module")
def local() -> Iterator[RunningLocalStripe]:
    with RunningLocalStripe() as running:
        yield running


@pytest.fixture(scope="module")
def subscription(local: RunningLocalStripe) -> stripe.Subscription:
    return local.subscribe()


def raw(local: RunningLocalStripe, method: str, path: str, **values: Any) -> Any:
    return local.client.raw_request(method, path, **values)


def key(local: RunningLocalStripe, api_key: str) -> stripe.StripeClient:
    return stripe.StripeClient(api_key, base_addresses={"api": local.url}, stripe_version=API_VERSION)


def test_the_account_answers(local: RunningLocalStripe) -> None:
    account = local.client.v1.accounts.retrieve_current()
    assert account.id.startswith("acct_") and account.charges_enabled


def test_a_request_without_a_key_is_refused(local: RunningLocalStripe) -> None:
    answer, body = local._send("GET", f"{local.url}/v1/account")
    assert answer.status == 401 and "did not provide an API key" in body


def test_a_live_key_is_refused(local: RunningLocalStripe) -> None:
    with pytest.raises(stripe.AuthenticationError, match="live key"):
        key(local, "sk_live_" + "1" * 24).v1.customers.list()


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({"emial": "x"}, "emial", "parameter_unknown"),
        ({"address": {"town": "x"}}, "address[town]", "parameter_unknown"),
        ({"email": {"a": "b"}}, "email", None),
        ({"invoice_settings": "x"}, "invoice_settings", None),
        ({"metadata": "x"}, "metadata", None),
    ],
)
def test_a_wrong_parameter_is_named(local: RunningLocalStripe, values: Any, param: str, code: str | None) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        local.client.v1.customers.create(values)
    assert (refused.value.http_status, refused.value.param, refused.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"mode": "payment"}, "mode"),
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"line_items": [{"price": "price_none"}]}, "line_items[0][price]"),
        ({"line_items": [{"quantity": 1}]}, "line_items[0][price]"),
        ({"line_items": [{"price": "x", "quantity": "many"}]}, "line_items[0][quantity]"),
        ({"line_items": []}, "line_items"),
        ({"subscription_data": {"trial_days": 3}}, "subscription_data[trial_days]"),
        ({"customer": "cus_none"}, "customer"),
        ({"expires_at": 5}, "expires_at"),
    ],
)
def test_a_checkout_session_checks_what_it_is_given(
    local: RunningLocalStripe, subscription: stripe.Subscription, changes: Any, param: str
) -> None:
    price = subscription["items"]["data"][0]["price"]["id"]
    with pytest.raises(stripe.InvalidRequestError) as refused:
        local.open_checkout(price, **changes)
    assert refused.value.param == param


def test_what_it_does_not_cover_is_not_found(local: RunningLocalStripe) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL") as refused:
        local.client.v1.setup_intents.create()
    assert refused.value.http_status == 404


def test_an_object_that_is_not_there_is_named(local: RunningLocalStripe) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such customer: 'cus_none'") as refused:
        local.client.v1.customers.retrieve("cus_none")
    assert refused.value.code == "resource_missing"


def test_a_key_makes_a_request_happen_once(local: RunningLocalStripe) -> None:
    create = local.client.v1.customers.create
    first = create({"email": "once@example.com"}, {"idempotency_key": "once"})
    again = create({"email": "once@example.com"}, {"idempotency_key": "once"})
    assert first.id == again.id
    assert len(local.client.v1.customers.list({"email": "once@example.com"}).data) == 1
    with pytest.raises(stripe.IdempotencyError):
        create({"email": "other@example.com"}, {"idempotency_key": "once"})


def test_a_key_is_forgotten_after_a_day(local_stripe: RunningLocalStripe) -> None:
    create = local_stripe.client.v1.customers.create
    first = create({"email": "day@example.com"}, {"idempotency_key": "day"})
    local_stripe.advance(23 * 3600)
    assert create({"email": "day@example.com"}, {"idempotency_key": "day"}).id == first.id
    local_stripe.advance(2 * 3600)
    later = create({"email": "other@example.com"}, {"idempotency_key": "day"})
    assert later.id != first.id
    assert create({"email": "other@example.com"}, {"idempotency_key": "day"}).id == later.id


def test_keys_of_a_state_file_without_their_time_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    store = Store(file)
    store.idempotency["old"] = {"asked": "", "reply": {}}
    store.remember_request("new", "", {})
    store.save()
    again = Store(file)
    assert again.known_request("old") is None and again.known_request("new")


def test_a_list_for_a_customer_that_is_not_there_is_refused(local: RunningLocalStripe) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such customer: 'cus_none'"):
        local.client.v1.subscriptions.list({"customer": "cus_none"})


def test_a_refused_request_leaves_its_key_free(local: RunningLocalStripe) -> None:
    create: Any = local.client.v1.customers.create
    with pytest.raises(stripe.InvalidRequestError):
        create({"emial": "x"}, {"idempotency_key": "free"})
    assert create({"email": "free@example.com"}, {"idempotency_key": "free"}).email == "free@example.com"


def test_lists_come_in_pages_newest_first(local: RunningLocalStripe) -> None:
    made = [local.client.v1.products.create({"name": f"Page {n}"}).id for n in range(5)][::-1]
    page = local.client.v1.products.list({"limit": 2})
    assert ([each.id for each in page], page.has_more) == (made[:2], True)
    after = local.client.v1.products.list({"limit": 2, "starting_after": made[1]})
    assert [each.id for each in after] == made[2:4]
    before = local.client.v1.products.list({"limit": 2, "ending_before": made[3]})
    assert ([each.id for each in before], before.has_more) == (made[1:3], True)
    everything = [each.id for each in local.client.v1.products.list({"limit": 2}).auto_paging_iter()]
    assert everything[:5] == made and len(set(everything)) == len(everything)
    with pytest.raises(stripe.InvalidRequestError, match="between 1 and 100"):
        local.client.v1.products.list({"limit": 101})


def test_a_price_is_found_by_its_lookup_key(local: RunningLocalStripe) -> None:
    first = local.make_price("found")
    prices = local.client.v1.prices
    assert [each.id for each in prices.list({"lookup_keys": ["found", "lost"]})] == [first.id]
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        local.make_price("found")
    second = prices.create(
        {
            "currency": "eur",
            "unit_amount": 700,
            "recurring": {"interval": "month"},
            "product": str(first.product),
            "lookup_key": "found",
            "transfer_lookup_key": True,
        }
    )
    assert [each.id for each in prices.list({"lookup_keys": ["found"]})] == [second.id]
    assert second.unit_amount == 700


def test_an_inactive_price_sells_nothing(local: RunningLocalStripe) -> None:
    price = local.make_price("old")
    local.client.v1.prices.update(price.id, {"active": False})
    assert price.id not in [each.id for each in local.client.v1.prices.list({"active": True})]
    with pytest.raises(stripe.InvalidRequestError, match="inactive"):
        local.open_checkout(price.id)


def test_events_are_filtered_by_type_and_time(local: RunningLocalStripe, subscription: stripe.Subscription) -> None:
    events = local.client.v1.events
    wanted = ["customer.subscription.created", "invoice.paid"]
    assert {each.type for each in events.list({"types": wanted, "limit": 100})} == set(wanted)
    now = local.app.store.now()
    assert events.list({"created": {"gte": now + 60}}).data == []
    assert events.list({"created": {"gte": now - 60}}).data
    event = events.list({"type": "invoice.paid"}).data[0]
    assert events.retrieve(event.id).data.object["status"] == "paid"


def test_cancelled_subscriptions_are_listed_only_when_asked_for(local: RunningLocalStripe) -> None:
    gone = local.subscribe()
    local.client.v1.subscriptions.cancel(gone.id)
    customer = str(gone.customer)
    listed: Any = local.client.v1.subscriptions.list
    assert listed({"customer": customer}).data == []
    for status in ("all", "canceled", "ended"):
        assert [each.id for each in listed({"customer": customer, "status": status})] == [gone.id]


def test_ids_become_objects_when_asked_for(local: RunningLocalStripe, subscription: stripe.Subscription) -> None:
    full: Any = local.client.v1.subscriptions.retrieve(
        subscription.id, {"expand": ["latest_invoice", "customer", "items.data.price.product"]}
    )
    assert full.latest_invoice.status == "paid" and full.customer.email == "ada@example.com"
    assert full["items"]["data"][0].price.product.name == "Pub"
    listed: Any = local.client.v1.subscriptions.list({"expand": ["data.latest_invoice"]})
    assert listed.data[0].latest_invoice.object == "invoice"
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        local.client.v1.subscriptions.retrieve(subscription.id, {"expand": ["costumer"]})


def test_metadata_is_merged_and_emptied_by_name(local: RunningLocalStripe) -> None:
    customer = local.client.v1.customers.create({"metadata": {"1": "a", "two": "b"}})
    local.client.v1.customers.update(customer.id, {"metadata": {"1": "", "three": "c"}})
    kept = local.client.v1.customers.retrieve(customer.id).to_dict()
    assert kept["metadata"] == {"two": "b", "three": "c"}


def test_an_update_tells_what_it_was_before(local: RunningLocalStripe) -> None:
    customer = local.client.v1.customers.create({"name": "Ada"})
    local.client.v1.customers.update(customer.id, {"name": "Ada L."})
    event = local.client.v1.events.list({"type": "customer.updated"}).data[0]
    assert event.to_dict()["data"]["previous_attributes"] == {"name": "Ada"}


def test_cancelling_at_the_end_of_the_period_through_the_api(local: RunningLocalStripe) -> None:
    made = local.subscribe()
    ending = local.client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    assert ending.cancel_at_period_end and ending.cancel_at == ending["items"]["data"][0]["current_period_end"]
    kept = local.client.v1.subscriptions.update(made.id, {"cancel_at_period_end": False})
    assert (kept.cancel_at_period_end, kept.cancel_at, kept.canceled_at) == (False, None, None)


def test_two_local_stripes_share_nothing(local: RunningLocalStripe, local_stripe: RunningLocalStripe) -> None:
    local.client.v1.customers.create({"email": "here@example.com"})
    assert local_stripe.client.v1.customers.list().data == []


def test_a_huge_request_is_refused(local: RunningLocalStripe) -> None:
    answer, body = local._send(
        "POST", f"{local.url}/v1/customers", {"name": "x" * 1_100_000}, {"Authorization": "Bearer sk_test_1"}
    )
    assert answer.status == 400 and "too large" in body


@pytest.mark.parametrize("form", ["a=1&a[b]=2", "a[=1", "[]=1", "&".join(f"a{n}=1" for n in range(1001))])
def test_a_form_that_makes_no_sense_is_refused(form: str) -> None:
    with pytest.raises(Problem) as refused:
        read(parse(form), {})
    assert refused.value.status == 400
