"""To Stripe's pages and back. The look-up is the permission; what was paid is read from Stripe, never from the link."""

from collections.abc import Callable
from functools import wraps
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.models import User
from billing import gateway, paid
from billing.gateway import PaymentTrouble
from billing.ladder import Rung
from billing.paid import NotNeeded
from pubs import live
from pubs.models import Bot

type BotView = Callable[[HttpRequest, Bot], HttpResponse]

THANKS = "Thank you! Your pub is paid."
WAITING = "We wait for your payment to be confirmed. This page shows it as soon as it is."


def _own_pub(view: BotView) -> Callable[[HttpRequest, UUID], HttpResponse]:
    """Sign-in, the visitor's own pub or 404, and payment trouble as a message on the pub's page."""

    @login_required
    @wraps(view)
    def with_bot(request: HttpRequest, pk: UUID) -> HttpResponse:
        assert isinstance(request.user, User)
        bot = get_object_or_404(request.user.bots.alive(), pk=pk)
        try:
            return view(request, bot)
        except (PaymentTrouble, NotNeeded) as trouble:
            messages.error(request, str(trouble))
            return redirect(bot)

    return with_bot


@require_POST
@_own_pub
def checkout(request: HttpRequest, bot: Bot) -> HttpResponse:
    # 303: the browser fetches the payment page and forgets the form, so that going back sends nothing again.
    return HttpResponseRedirect(paid.start_checkout(bot, request.POST.get("offer", "")), status=303)


@require_GET
@_own_pub
def come_back(request: HttpRequest, bot: Bot) -> HttpResponse:
    """Back from Stripe's pages. Whatever was done there is looked at by us, so that a lost webhook strands nobody."""
    if "session_id" not in request.GET:
        # From the portal: whether anything was done there, Stripe's link does not say.
        live.look_at_payment(bot.pk)
        return redirect(bot)
    try:
        session = gateway.read_checkout(request.GET["session_id"][:255])
        if session is None or session.bot_id != bot.pk:
            return redirect(bot)
        paid.look(bot.pk)
    except PaymentTrouble:
        # The card may have been charged by now: whoever came back must not be sent to pay once more.
        live.look_at_payment(bot.pk)
        messages.info(request, WAITING)
        return redirect(bot)
    bot.refresh_from_db()
    if session.status == "complete" and bot.rung == Rung.PAID:
        messages.success(request, THANKS)
    elif session.status == "complete" and not bot.paid:
        messages.info(request, WAITING)
    return redirect(bot)


@require_http_methods(["GET", "POST"])
@_own_pub
def portal(request: HttpRequest, bot: Bot) -> HttpResponse:
    """To the portal, or to the part of it that `flow` names: mails link here as well."""
    flow = (request.POST or request.GET).get("flow", "")
    return HttpResponseRedirect(gateway.open_portal(bot.owner, bot, flow), status=303)
