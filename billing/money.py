"""Money as people write it: Stripe counts in smallest units, and each language has its own signs and commas."""

from decimal import Decimal

from babel import Locale, UnknownLocaleError
from babel.numbers import parse_pattern
from django.utils.translation.trans_real import parse_accept_lang_header

ENGLISH = Locale("en")
# How Stripe counts, which is not always how the world does: https://docs.stripe.com/currencies
WHOLE = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"}
)
THOUSANDTHS = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
# Counted in hundredths like most, though there is no coin below the whole.
WHOLE_IN_HUNDREDTHS = frozenset({"isk", "ugx"})


def money(amount: int, currency: str, locale: Locale = ENGLISH) -> str:
    """Stripe's smallest units as its reader writes them: 950 eur is €9.50, or 9,50 € in German; 900 eur is €9."""
    digits = _digits(currency)
    value = Decimal(amount).scaleb(-digits)
    shown = 0 if value == int(value) or currency in WHOLE_IN_HUNDREDTHS else digits
    pattern = parse_pattern(locale.currency_formats["standard"].pattern)
    pattern.frac_prec = (shown, shown)
    return pattern.apply(value, locale, currency=currency.upper(), currency_digits=False)


def units(value: Decimal, currency: str) -> int:
    """The other way round: 9.50 eur is 950. ValueError, in words for people, for less than the smallest coin."""
    coins = 0 if currency in WHOLE_IN_HUNDREDTHS else min(_digits(currency), 2)
    if value != round(value, coins):
        said = f"{coins} digits after the point" if coins else "no digits after the point"
        raise ValueError(f"An amount in {currency.upper()} has {said}.")
    return int(value.scaleb(_digits(currency)))


def _digits(currency: str) -> int:
    return 0 if currency in WHOLE else 3 if currency in THOUSANDTHS else 2


def locale_of(accept_language: str) -> Locale:
    """The first language of a browser's wishes whose way with numbers is known; English without any."""
    for tag, _ in parse_accept_lang_header(accept_language):
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return ENGLISH
