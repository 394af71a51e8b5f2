"""What an owner chooses for a pub: what to be told and how, who may see how it is, its name, and its end."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.cache import cache
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from mailer.models import Hook
from pubs.forms import DeleteForm, HookForm, NoticesForm, RenameForm
from pubs.models import Bot, Notices
from pubs.views.own import AuthenticatedRequest, own

DELIVERIES_SHOWN = 5
# Until the next test: each is a request from us to somebody else.
TEST_SECONDS = 10


@login_required
@require_safe
@never_cache
def settings(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    return settings_page(request, own(request, pk))


def settings_page(request: AuthenticatedRequest, bot: Bot, **bound: Any) -> HttpResponse:
    """The whole page. A form that was refused comes as `rename`, `notices` or `hook`."""
    notices = Notices.of(bot)
    public = reverse("status:pub", args=[bot.pk])
    context = {
        "bot": bot,
        "notices": notices,
        "notices_form": bound.get("notices") or NoticesForm.of(notices),
        "hook_form": bound.get("hook") or HookForm(initial={"url": notices.hook_url}),
        "rename": bound.get("rename") or RenameForm(initial={"name": bot.name}),
        "deliveries": Hook.objects.filter(about=str(bot.pk))[:DELIVERIES_SHOWN],
        "public_url": request.build_absolute_uri(public),
        "badge_url": request.build_absolute_uri(reverse("status:badge", args=[bot.pk])),
    }
    return render(request, "pubs/settings.html", context, status=422 if bound else 200)


def back(bot: Bot, part: str) -> HttpResponse:
    return redirect(reverse("pubs:settings", args=[bot.pk]) + f"#{part}")


@login_required
@require_POST
def choose_notices(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    form = NoticesForm(request.POST)
    if not form.is_valid():
        return settings_page(request, bot, notices=form)
    Notices.of(bot).choose(form.cleaned_data["mail"], form.cleaned_data["hook"])
    messages.success(request, "That is what we tell you now.")
    return back(bot, "notices")


@login_required
@require_POST
def set_hook(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    form = HookForm(request.POST)
    if not (form.is_valid() and form.post_to(Notices.of(bot))):
        return settings_page(request, bot, hook=form)
    said = "News of your pub are posted there from now on." if form.cleaned_data["url"] else "Nothing is posted now."
    messages.success(request, said)
    return back(bot, "hook")


@login_required
@require_POST
def renew_secret(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    Notices.of(bot).renew_secret()
    messages.success(request, "What is posted is signed with a new secret from now on, and so is what still waits.")
    return back(bot, "hook")


@login_required
@require_POST
def test_hook(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    notices = Notices.of(bot)
    if not notices.hook_url:
        messages.error(request, "Give an address first.")
    elif not cache.add(f"hook.test.{bot.pk}", 1, TEST_SECONDS):
        messages.error(request, f"One test each {TEST_SECONDS} seconds is enough. Its answer is below.")
    else:
        now = timezone.now()
        notices.post(f"test:{bot.pk}:{now.timestamp()}", "test", kind="", since=now, words="This is a test.")
        messages.success(request, "A test is on its way. Look again in a moment to see how it was answered.")
    return back(bot, "hook")


@login_required
@require_POST
def make_public(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    bot.show_status(request.POST.get("public") == "on")
    messages.success(
        request, "Anybody may see how your pub is now." if bot.status_public else "Its status page is closed now."
    )
    return back(bot, "public")


@login_required
@require_POST
def rename(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    form = RenameForm(request.POST)
    if form.is_valid() and form.rename(bot):
        messages.success(request, f"Your pub is called “{bot.name}” now.")
        return back(bot, "name")
    return settings_page(request, bot, rename=form)


@login_required
@never_cache
def delete(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    form = DeleteForm(request.POST or None, bot=bot)
    if form.is_valid():
        bot.delete_softly()
        messages.success(request, f"“{bot.name}” is deleted. It stops now, and you pay nothing more for it.")
        return redirect("pubs:list")
    return render(request, "pubs/delete.html", {"bot": bot, "form": form}, status=422 if form.errors else 200)
