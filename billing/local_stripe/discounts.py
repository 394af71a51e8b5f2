"""Coupons, the promotion codes that customers type for them, and the discounts that come of it."""

import secrets
from calendar import monthrange
from datetime import UTC, datetime
from decimal import Decimal

from .amounts import Off
from .params import read
from .specs import NEW_COUPON, NEW_PROMOTION_CODE
from .store import Json, Problem, Store, new_id
from .webhooks import Webhooks

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


class Discounts:
    """What takes something off a customer's invoices."""

    def __init__(self, store: Store, webhooks: Webhooks) -> None:
        self.store = store
        self.emit = webhooks.emit

    # Coupons and codes ----------------------------------------------------------------------------

    def create_coupon(self, params: Json) -> Json:
        values = {"duration": "once", **read(params, NEW_COUPON)}
        if ("percent_off" in values) == ("amount_off" in values):
            raise Problem(400, "You must pass either `percent_off` or `amount_off`, and not both.", param="percent_off")
        if "amount_off" in values and not values.get("currency"):
            raise Problem(400, "You must pass currency when passing amount_off.", "parameter_missing", "currency")
        if (values["duration"] == "repeating") != ("duration_in_months" in values):
            words = "`duration_in_months` belongs to a coupon whose duration is `repeating`, and only to that."
            raise Problem(400, words, param="duration_in_months")
        if self.store.find("coupon", values.get("id")):
            raise Problem(400, "Coupon already exists.", "resource_already_exists", "id")
        defaults: Json = {
            "id": _random_code(),
            "amount_off": None,
            "currency": None,
            "duration_in_months": None,
            "max_redemptions": None,
            "name": None,
            "percent_off": None,
            "redeem_by": None,
            "times_redeemed": 0,
            "valid": True,
        }
        coupon = self.store.add("coupon", **{**defaults, **values})
        self.emit("coupon.created", coupon)
        return coupon

    def delete_coupon(self, params: Json, coupon_id: str) -> Json:
        """Nobody gets it any more; who has it keeps it."""
        read(params, {})
        coupon = self.store.get("coupon", coupon_id)
        self.store.remove("coupon", coupon_id)
        self.emit("coupon.deleted", coupon)
        return {"id": coupon_id, "object": "coupon", "deleted": True}

    def create_promotion_code(self, params: Json) -> Json:
        values = read(params, NEW_PROMOTION_CODE, required=["promotion"])
        spec = NEW_PROMOTION_CODE["promotion"]
        coupon_id = read(params["promotion"], spec, required=["type", "coupon"], inside="promotion")["coupon"]
        self.store.get("coupon", coupon_id, "promotion[coupon]")
        code = values.get("code") or _random_code()
        if self._active_code(code):
            raise Problem(400, f"An active promotion code with `code: {code}` already exists.", param="code")
        restrictions = {"first_time_transaction": False, "minimum_amount": None, "minimum_amount_currency": None}
        made = self.store.add(
            "promotion_code",
            active=values.get("active", True),
            code=code,
            customer=values.get("customer"),
            expires_at=values.get("expires_at"),
            max_redemptions=values.get("max_redemptions"),
            metadata=values.get("metadata"),
            promotion={"coupon": coupon_id, "type": "coupon"},
            restrictions=restrictions | values.get("restrictions", {}),
            times_redeemed=0,
        )
        self.emit("promotion_code.created", made)
        return made

    def _active_code(self, code: str) -> Json | None:
        """Codes are the same whatever their case."""
        same = (each for each in self.store.all("promotion_code") if each["code"].lower() == code.lower())
        return next((each for each in same if each["active"]), None)

    # Who may have one -----------------------------------------------------------------------------

    def by_code(self, typed: str, customer: Json | None, subtotal: int, currency: str) -> Json:
        """The promotion code that a customer typed. Problem 400 says why it can't be had."""
        code = self._active_code(typed.strip())
        if code is None:
            raise Problem(400, "This code is invalid.", "coupon_expired", "promotion_code")
        self.check_code(code, customer, subtotal, currency)
        return code

    def check_code(self, code: Json, customer: Json | None, subtotal: int, currency: str) -> None:
        if not code["active"] or _is_over(code["expires_at"], self.store.now()) or _is_used_up(code):
            raise Problem(400, "This promotion code has expired.", "coupon_expired", "promotion_code")
        self.check_coupon(self.store.get("coupon", code["promotion"]["coupon"]), currency)
        limits = code["restrictions"]
        if code["customer"] and code["customer"] != (customer or {}).get("id"):
            raise Problem(400, "This promotion code cannot be redeemed by this customer.", param="promotion_code")
        if limits["first_time_transaction"] and customer and self._has_paid(customer):
            raise Problem(400, "This promotion code cannot be redeemed because the customer has prior transactions.")
        if subtotal < (limits["minimum_amount"] or 0):
            raise Problem(400, "This promotion code cannot be redeemed because the order's amount is too low.")

    def check_coupon(self, coupon: Json, currency: str) -> None:
        if _is_over(coupon["redeem_by"], self.store.now()) or _is_used_up(coupon):
            raise Problem(400, "This coupon has expired.", "coupon_expired", "coupon")
        if coupon["amount_off"] and coupon["currency"] != currency:
            raise Problem(400, f"This coupon is for {coupon['currency']}, not for {currency}.", param="coupon")

    def _has_paid(self, customer: Json) -> bool:
        return any(each["amount_paid"] for each in self.store.of_customer("invoice", customer["id"]))

    # Discounts ------------------------------------------------------------------------------------

    def asked(self, entries: list[Json], customer: Json | None, subtotal: int, currency: str) -> list[Json]:
        """`discounts` of a request, checked: each a coupon or a promotion code, by id."""
        for entry in entries:
            if bool(entry.get("coupon")) == bool(entry.get("promotion_code")):
                raise Problem(400, "A discount is either a `coupon` or a `promotion_code`.", param="discounts")
            if entry.get("coupon"):
                self.check_coupon(self.store.get("coupon", entry["coupon"], "discounts[0][coupon]"), currency)
            else:
                code = self.store.get("promotion_code", entry["promotion_code"], "discounts[0][promotion_code]")
                self.check_code(code, customer, subtotal, currency)
        return [{"coupon": entry.get("coupon"), "promotion_code": entry.get("promotion_code")} for entry in entries]

    def offs_of(self, entries: list[Json]) -> list[Off]:
        """What entries as `asked` would take off: nothing is redeemed yet."""
        return [_off(str(entry["promotion_code"] or entry["coupon"]), self.coupon_of(entry)) for entry in entries]

    def coupon_of(self, entry: Json) -> Json:
        if entry["promotion_code"]:
            return self.coupon_of_code(self.store.get("promotion_code", entry["promotion_code"]))
        return self.store.get("coupon", entry["coupon"])

    def coupon_of_code(self, code: Json) -> Json:
        return self.store.get("coupon", code["promotion"]["coupon"])

    def give(self, subscription: Json, entries: list[Json], session_id: str | None = None) -> None:
        """Redeems coupons and codes for a subscription, from its next invoice on."""
        for entry in entries:
            coupon = self.coupon_of(entry)
            coupon["times_redeemed"] += 1
            coupon["valid"] = not _is_used_up(coupon)
            code = self.store.find("promotion_code", entry["promotion_code"])
            if code:
                code["times_redeemed"] += 1
                code["active"] = code["active"] and not _is_used_up(code)
            discount = self._make(subscription, coupon, code, session_id)
            subscription["discounts"] = [*subscription["discounts"], discount["id"]]
            self.emit("customer.discount.created", discount)

    def _make(self, subscription: Json, coupon: Json, code: Json | None, session_id: str | None) -> Json:
        now = self.store.now()
        months = coupon["duration_in_months"]
        discount: Json = {
            "id": new_id("discount"),
            "object": "discount",
            "checkout_session": session_id,
            "customer": subscription["customer"],
            "end": _months_later(now, months) if months else None,
            "invoice": None,
            "invoice_item": None,
            "promotion_code": code and code["id"],
            "source": {"coupon": coupon["id"], "type": "coupon"},
            "start": now,
            "subscription": subscription["id"],
            "subscription_item": None,
            # A deleted coupon goes on counting for who has it.
            "_coupon": {name: coupon[name] for name in ("amount_off", "duration", "name", "percent_off")},
        }
        self.store.put(discount)
        return discount

    def offs(self, subscription: Json) -> list[Off]:
        """What the next invoice of a subscription gets off, for `amounts.reckon`."""
        return [_off(each["id"], each["_coupon"]) for each in self._living(subscription)]

    def share(self, subscription: Json) -> Decimal:
        """What discounts in percent leave of a price now. Fixed amounts are for whole invoices, not for parts."""
        left = Decimal(1)
        for off in self.offs(subscription):
            left *= 1 - (off.percent or 0) / Decimal(100)
        return left

    def use(self, subscription: Json, taken: dict[str, int]) -> None:
        """After an invoice: what counts only once, and took something off, is over; so is what ran out."""
        living = [each["id"] for each in self._living(subscription)]
        for discount_id in subscription["discounts"]:
            discount = self.store.get("discount", discount_id)
            is_spent = discount["_coupon"]["duration"] == "once" and taken.get(discount_id, 0) > 0
            if is_spent or discount_id not in living:
                subscription["discounts"] = [each for each in subscription["discounts"] if each != discount_id]
                self.emit("customer.discount.deleted", discount)

    def _living(self, subscription: Json) -> list[Json]:
        now = self.store.now()
        found = (self.store.get("discount", each) for each in subscription["discounts"])
        return [each for each in found if not _is_over(each["end"], now)]

    def name(self, discount_id: str) -> str:
        """What an invoice calls it: the code that the customer typed, or the coupon's name."""
        discount = self.store.get("discount", discount_id)
        code = self.store.find("promotion_code", discount["promotion_code"])
        return str((code or {}).get("code") or discount["_coupon"]["name"] or discount["source"]["coupon"])


def _off(discount_id: str, coupon: Json) -> Off:
    percent = coupon["percent_off"]
    return Off(discount_id, None if percent is None else Decimal(str(percent)), coupon["amount_off"] or 0)


def _is_over(end: int | None, now: int) -> bool:
    return end is not None and end <= now


def _is_used_up(counted: Json) -> bool:
    return counted["max_redemptions"] is not None and counted["times_redeemed"] >= counted["max_redemptions"]


def _months_later(moment: int, months: int) -> int:
    begin = datetime.fromtimestamp(moment, UTC)
    year, month = divmod(begin.year * 12 + begin.month - 1 + months, 12)
    day = min(begin.day, monthrange(year, month + 1)[1])
    return int(begin.replace(year=year, month=month + 1, day=day).timestamp())


def _random_code() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(8))
