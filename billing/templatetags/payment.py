"""The words of the payment on a pub's page: `{% load payment %}{{ bot|payment_words }}`."""

from django import template

from billing import paid

register = template.Library()
register.filter("payment_words", paid.words)
