"""A pub's own page, and what its owner does there: what is done, the bot does itself."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from pubs import catalogue, live, working
from pubs.forms import NameForm
from pubs.models import Bot
from pubs.views.own import AuthenticatedRequest, own, wants_piece

ANSWERS_SHOWN = 10


@require_safe
@vary_on_headers("Accept-Language")
def landing(request: HttpRequest) -> HttpResponse:
    return render(request, "landing.html")


@login_required
@require_safe
def bot_list(request: AuthenticatedRequest) -> HttpResponse:
    return render(request, "pubs/list.html", {"bots": request.user.bots.alive()})


@login_required
@vary_on_headers("Accept-Language")
def new(request: AuthenticatedRequest) -> HttpResponse:
    form = NameForm(request.POST or None)
    if form.is_valid() and (bot := form.create(request.user)):
        return redirect(bot)
    first = not request.user.bots.alive().exists()
    return render(request, "pubs/new.html", {"form": form, "first": first}, status=422 if form.errors else 200)


@login_required
@require_safe
@never_cache
@vary_on_headers("Accept-Language", "X-Requested-With")
def pub(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    if wants_piece(request):
        return render(request, "pubs/_pub.html", {"bot": bot})
    live.watch(bot.pk)
    working.look_closer(bot)
    return pub_page(request, bot)


def pub_page(request: AuthenticatedRequest, bot: Bot, **bound: Any) -> HttpResponse:
    """The whole page. A form that was refused comes as `asked`, under its entry."""
    offered = [entry for entry in catalogue.CATALOGUE.values() if entry.on_page]
    # What a new pub needs first comes first, then what needs no form.
    offered.sort(key=lambda entry: (entry.name != "create_invite", bool(entry.form.base_fields)))
    forms = {entry: entry.page_form() for entry in offered}
    context = {
        "bot": bot,
        "stats": live.newest_stats(bot.pk),
        "commands": bot.commands.all()[:ANSWERS_SHOWN],
        "forms": forms | bound.get("asked", {}),
    }
    return render(request, "pubs/pub.html", context, status=422 if bound else 200)


@login_required
@require_POST
def start(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    return wish(request, pk, Bot.start)


@login_required
@require_POST
def stop(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    return wish(request, pk, Bot.stop)


@login_required
@require_POST
def restart(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    return wish(request, pk, Bot.restart, "Your pub restarts. Nothing in it is lost.")


def wish(request: AuthenticatedRequest, pk: UUID, deed: Callable[[Bot], None], done: str = "") -> HttpResponse:
    bot = own(request, pk)
    try:
        deed(bot)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
    else:
        if done:
            messages.success(request, done)
    return redirect(bot)


@login_required
@require_POST
def command(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    entry = catalogue.CATALOGUE.get(request.POST.get("name", ""))
    if entry is None or not entry.on_page:
        raise Http404("A pub knows no such command.")
    form = entry.page_form(request.POST)
    try:
        asked = catalogue.ask(bot, request.user, entry.name, entry.page_args(request.POST))
    except ValidationError as error:
        if form.is_valid():  # then no field is at fault: too many wait already
            form.add_error(None, error.messages)
        return refused(request, bot, entry, form)
    if wants_piece(request):
        return render(request, "pubs/_command.html", {"bot": bot, "command": asked}, status=201)
    return redirect("pubs:command_result", bot.pk, asked.pk)


def refused(request: AuthenticatedRequest, bot: Bot, entry: catalogue.Entry, form: Any) -> HttpResponse:
    if wants_piece(request):
        return render(request, "pubs/_command_form.html", {"bot": bot, "entry": entry, "form": form}, status=422)
    return pub_page(request, bot, asked={entry: form})


@login_required
@require_GET
@never_cache
@vary_on_headers("X-Requested-With")
def command_result(request: AuthenticatedRequest, pk: UUID, command_pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    asked = get_object_or_404(bot.commands, pk=command_pk)
    template = "pubs/_command.html" if wants_piece(request) else "pubs/command_result.html"
    return render(request, template, {"bot": bot, "command": asked})
