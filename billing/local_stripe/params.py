"""Forms as Stripe reads them: brackets into nested values, then each checked against a list of names.

A spec is a dict of names; each value is a check, another dict (a hash) or a list with one spec (an array).
An unknown name is refused as Stripe does, so that a typo in the gateway shows at once.
"""

import re
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .store import Json, Problem

type Check = Callable[[Any, str], Any]
type Spec = Check | dict[str, Any] | list[Any]

NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){0,6})")
MOST_FIELDS = 1000


def parse(text: str) -> Json:
    """`items[0][price]=x&expand[]=y` to nested dicts of strings. Arrays stay dicts with numbers as names."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise Problem(400, f"The form could not be read: {error}.") from error
    form: Json = {}
    for name, value in pairs:
        _put(form, name, value)
    return form


def _put(form: Json, name: str, value: str) -> None:
    match = NAME.fullmatch(name)
    if match is None:
        raise Problem(400, f"Invalid parameter name: {name[:80]}", param=name[:80])
    *folders, last = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
    here = form
    for folder in folders:
        here = here.setdefault(folder or str(len(here)), {})
        if not isinstance(here, dict):
            raise Problem(400, f"Parameter {name[:80]} is both a value and a hash.", param=name[:80])
    here[last or str(len(here))] = value


def read(params: Json, spec: dict[str, Any], required: Collection[str] = (), inside: str = "") -> Json:
    """The values in their types. Raises Problem 400 for what is unknown, missing or malformed."""
    for name in params:
        if name not in spec:
            raise _unknown(_joined(inside, name))
    values = {name: check(value, spec[name], _joined(inside, name)) for name, value in params.items()}
    for name in required:
        if values.get(name) in (None, [], {}):
            raise _empty(_joined(inside, name)) if name in params else _missing(_joined(inside, name))
    return values


def check(value: Any, spec: Spec, param: str) -> Any:
    if isinstance(spec, dict):
        return {} if value == "" else read(_hash(value, param), spec, inside=param)
    if isinstance(spec, list):
        return [check(each, spec[0], f"{param}[{at}]") for at, each in enumerate(_array(value, param))]
    return spec(value, param)


def _joined(inside: str, name: str) -> str:
    return f"{inside}[{name}]" if inside else name


def _unknown(param: str) -> Problem:
    return Problem(
        400,
        f"Received unknown parameter: {param} (or one that the local Stripe does not cover, "
        "see billing/local_stripe/__init__.py)",
        "parameter_unknown",
        param,
    )


def _missing(param: str) -> Problem:
    return Problem(400, f"Missing required param: {param}.", "parameter_missing", param)


def _empty(param: str) -> Problem:
    return Problem(
        400,
        f"You passed an empty string for '{param}'. We assume empty values are an attempt to unset a "
        f"parameter; however '{param}' cannot be unset.",
        "parameter_invalid_empty",
        param,
    )


def _hash(value: Any, param: str) -> Json:
    if not isinstance(value, dict):
        raise Problem(400, "Invalid hash", param=param)
    return value


def _array(value: Any, param: str) -> list[Any]:
    if value == "":
        return []
    if not isinstance(value, dict) or not all(re.fullmatch("[0-9]{1,4}", name) for name in value):
        raise Problem(400, "Invalid array", param=param)
    return [value[name] for name in sorted(value, key=int)]


# Checks: each takes the raw value and the parameter's full name. An empty string unsets, as with Stripe.
# ----------


def text(value: Any, param: str) -> str | None:
    if not isinstance(value, str):
        raise Problem(400, f"Invalid string: {value}", param=param)
    if len(value) > 5000:
        raise Problem(400, f"Invalid string: {param} must be at most 5000 characters", param=param)
    return value or None


def filled(value: Any, param: str) -> str:
    """Text that cannot be unset."""
    words = text(value, param)
    if words is None:
        raise _empty(param)
    return words


def integer(value: Any, param: str) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,12}", value):
        raise Problem(400, f"Invalid integer: {value}", "parameter_invalid_integer", param)
    return int(value)


def between(least: int, most: int) -> Check:
    def checked(value: Any, param: str) -> int:
        number = integer(value, param)
        if not least <= number <= most:
            raise Problem(400, f"Invalid integer: {number}. It must be between {least} and {most}.", param=param)
        return number

    return checked


def number(least: float, most: float) -> Check:
    """A number with up to two decimals."""

    def checked(value: Any, param: str) -> float:
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,2})?0*", value):
            raise Problem(400, f"Invalid decimal: {value}", param=param)
        if not least <= float(value) <= most:
            raise Problem(400, f"Invalid decimal: {value}. It must be between {least} and {most}.", param=param)
        return float(value)

    return checked


def moment(value: Any, param: str) -> int | None:
    """Seconds since 1970, or nothing."""
    return None if value == "" else integer(value, param)


def flag(value: Any, param: str) -> bool:
    if value not in ("true", "false"):
        raise Problem(400, f"Invalid boolean: {value}", param=param)
    return bool(value == "true")


def web_address(value: Any, param: str) -> str:
    address = filled(value, param)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Problem(400, "Not a valid URL: it must start with http:// or https://", "url_invalid", param)
    return address


def one_of(*words: str) -> Check:
    def checked(value: Any, param: str) -> str:
        if value not in words:
            raise Problem(400, f"Invalid {param}: must be one of {', '.join(words)}", param=param)
        return str(value)

    return checked


def metadata(value: Any, param: str) -> dict[str, str]:
    """A hash of strings. An empty value in it means: remove this one."""
    if value == "":
        return {}
    values = _hash(value, param)
    for name, each in values.items():
        if not isinstance(each, str) or len(name) > 40 or len(each) > 500:
            raise Problem(
                400,
                "Metadata values must be strings of at most 500 characters, under names of at most 40.",
                param=f"{param}[{name}]",
            )
    return values


def span(value: Any, param: str) -> dict[str, int]:
    """A moment, or a hash of gt, gte, lt, lte."""
    if isinstance(value, str):
        seconds = integer(value, param)
        return {"gte": seconds, "lte": seconds}
    return read(_hash(value, param), {"gt": integer, "gte": integer, "lt": integer, "lte": integer}, inside=param)
