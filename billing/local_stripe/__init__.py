"""A local Stripe: a small stateful server that speaks Stripe's API, for running and testing without Stripe.

The product talks to it exactly as it talks to Stripe, with another base address and other keys. It keeps its
objects in one file, shows hosted Checkout, Billing Portal and invoice pages, and sends signed webhooks.
No real money and no real card is ever involved: it knows only Stripe's published test cards.

It covers, in the shapes of API version 2026-05-27.dahlia:
  account, products, prices, customers, payment methods (cards), Checkout sessions in subscription mode,
  Billing Portal sessions, subscriptions with one item, subscription items, invoices, invoice payments,
  payment intents, events, webhook endpoints; lists with their filters and cursors, `expand`, idempotency
  keys, unknown parameters.

It does not cover:
  proration, tax, coupons, refunds, charges, 3-D Secure, setup intents, test clocks, connected accounts,
  search, Checkout in payment or setup mode, portal configurations and flows. These answer an error that says
  so.

Good to know. What differs from Stripe differs on purpose:
  * Invoices are finalised and charged at once, where Stripe waits about an hour with a renewal.
  * A renewal that fails is tried again after 3, 5 and 7 days; then the subscription is cancelled.
  * A webhook is tried 4 times, then again after a restart. Each endpoint gets its events one at a
    time, in order.
  * Cancelling in the portal writes `cancel_at` and leaves `cancel_at_period_end` false, as Stripe does for
    subscriptions in flexible billing mode; through the API both are written. Readers must look at both.
  * A card declined at Checkout leaves no trace: no incomplete subscription, no failed payment intent.
  * `POST /v1/test_helpers/_advance` with `seconds` moves the clock. This one is ours, Stripe has test clocks.

Modules: `store` objects and their file, `params` forms and their checks, `specs` what each request may say,
`webhooks` events and their delivery, `money` everything that charges or takes time, `api` the /v1 routes,
`pages` what customers see, `app` the server.
"""
