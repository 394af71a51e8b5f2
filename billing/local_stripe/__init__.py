"""A local Stripe: a small stateful server that speaks Stripe's API, for running and testing without Stripe.

The product talks to it exactly as it talks to Stripe, with another base address and other keys. It keeps its
objects in one file, shows hosted Checkout, Billing Portal and invoice pages, and sends signed webhooks.
No real money and no real card is ever involved: it knows only Stripe's published test cards.

It covers, in the shapes of API version 2026-05-27.dahlia:
  account, products, prices, coupons, promotion codes, customers and their tax ids, payment methods (cards), Checkout
  sessions in subscription mode, Billing Portal configurations, sessions and flows, subscriptions with one item,
  subscription items, proration and the invoice items that come of it, invoices, invoice payments, payment intents,
  charges, refunds, disputes, events, webhook endpoints; lists with their filters and cursors, `expand`, idempotency
  keys, unknown parameters.

It does not cover:
  setup intents, test clocks, connected accounts, search, balance transactions, invoice items made by hand, invoice
  previews, Checkout in payment or setup mode. These answer an error that says so, or an
  empty list.

Good to know. What differs from Stripe differs on purpose:
  * Invoices are finalised and charged at once, where Stripe waits about an hour with a renewal.
  * An invoice that fails, but for the first of a subscription, is tried again after 3, 5 and 7 days. What follows is
    a setting of the account, `after_retries`: `cancel` (the default), `unpaid` (later invoices stay drafts until
    somebody pays) or `past_due` (nothing). `POST /v1/test_helpers/_settings` sets it, where Stripe has its Dashboard.
  * Of an invoice all tries are one payment intent, each with a charge of its own. What a customer has to their credit
    (a downgrade) stands in `customer.balance` and is used when an invoice is finalised; it has no transactions.
  * A card that is saved in the portal is charged nothing, whatever is open: the seller pays that with it, or the
    customer does on the invoice's page. That Stripe's portal adds no charge of its own is inferred, not tried. Here the
    card also becomes that of each living subscription. Stripe's may change the customer's default alone: readers must
    reckon with both.
  * A subscription follows its `latest_invoice`, be it a draft: paying an older one makes none `active` again.
  * A card that pays on the invoice's page is used that once, and kept by nobody.
  * A change of plan in the portal stays, though its payment was declined: the subscription is past due then. Whether
    Stripe's portal undoes the change is not sure.
  * Prorations count seconds, of what discounts in percent leave of a price; fixed amounts off are for whole
    invoices. A price with another interval begins a new period, charged at once, whatever `proration_behavior` says of
    the credit for the old one. `payment_behavior=pending_if_incomplete` is not known.
  * Cards that want authentication ask for it at Checkout, where the subscription is incomplete until then, and in the
    API if the customer is there (`off_session` false). The portal takes its customer as authenticated, and a card
    that is left for after a trial as set up. Who is not there is declined with `authentication_required`.
  * A bank disputes the charges of card 4000 0000 0000 0259 a second later, when somebody next looks at the clock.
    `winning_evidence` and `losing_evidence` as `evidence[uncategorized_text]` end a dispute, as Stripe's own test
    evidence does; one that nobody answers is lost when its evidence was due, after 9 days.
  * A paused subscription can be resumed with `billing_cycle_anchor=now` only.
  * A state that takes long to write (more than 20 ms: thousands of subscriptions) is no longer written before each
    answer but at most a tenth of the time, and at the end: a kill then loses the last seconds of it.
  * Events beyond the newest 20,000 are forgotten, where Stripe keeps 30 days.
  * A webhook is tried 4 times, then again after a restart. Each endpoint gets its events one at a
    time, in order.
  * Cancelling in the portal writes `cancel_at` and leaves `cancel_at_period_end` false, as Stripe does for
    subscriptions in flexible billing mode; through the API both are written. Readers must look at both.
  * Tax comes from a made-up table of rates by country (`tax.COUNTRIES`) for a made-up seller in France, rounded line by
    line; a price without `tax_behavior` counts as exclusive. A number of a business is looked at but not looked up.
  * Coupons count for whole subscriptions: no `applies_to`, none for a customer or an item, one a Checkout session. They
    are given at Checkout and with new subscriptions; through the API no subscription gets one later. A session's
    `total_details` has no `breakdown`; its invoice says all.
  * The portal's default configuration is there from the start, as if saved in the Dashboard: card, invoices,
    cancellation. No `schedule_at_period_end`, no `trial_update_behavior`, no quantities, no codes. Its page is in
    English whatever `locale` says.
  * `POST /v1/test_helpers/_webhooks` with `mode` `deliver`, `hold` or `drop` has webhooks sent, kept for later or lost.
    This one is ours too. The page at `/` has buttons for it, and for the clock, the setting and the end of a dispute.
  * A card declined at Checkout leaves no trace: no incomplete subscription, no failed payment intent.
  * The clock of a new one can begin elsewhere than the machine's: `make_app(…, clock_offset=…)`.
  * `POST /v1/test_helpers/_advance` with `seconds` moves the clock. This one is ours, Stripe has test clocks.

Modules: `store` objects and their file, `params` forms and their checks, `specs` what each request may say,
`webhooks` events and their delivery, `agenda` what falls due when, `cards` the test cards, `amounts` what a bill comes
to, `discounts` coupons and codes, `tax` rates and numbers of businesses, `periods` when periods end and what is left of
them, `charges` money that moves, `money` subscriptions and invoices, `checkout` what a session comes to, `portal` its
configurations and flows, `api` the /v1 routes, `pages` what people see (`checkout_page`, `portal_page`, and `page`
what all of them share), `app` the server.
"""
