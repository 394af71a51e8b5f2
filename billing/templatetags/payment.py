"""The payment on a pub's page, after `{% load payment %}`.

`{{ bot|payment_words }}` is a sentence; `{{ bot|pays_by }}` is the page that gets the pub running, "checkout" or
"portal", and "" when it is paid for.
"""

from django import template

from billing import paid
from billing.words import words

register = template.Library()
register.filter("payment_words", words)
register.filter("pays_by", paid.pays_by)
