"""What all pages of a pub begin with: the look-up of the bot is the permission."""

from uuid import UUID

from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from accounts.models import User
from pubs.models import Bot


class AuthenticatedRequest(HttpRequest):
    """Behind `login_required`."""

    user: User


def own(request: AuthenticatedRequest, pk: UUID) -> Bot:
    return get_object_or_404(Bot.objects.alive().filter(owner=request.user), pk=pk)


def wants_piece(request: HttpRequest) -> bool:
    """Whether our own script asks: it puts a piece into the page that it has."""
    return request.headers.get("X-Requested-With") == "fetch"
