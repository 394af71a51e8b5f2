"""The answers to "is my pub working?", for templates."""

from django import template

from pubs import working

register = template.Library()
register.filter("answers", working.answers)
register.filter("verdict", working.verdict)
