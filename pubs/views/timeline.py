"""All that happened to a pub."""

from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from pubs.timeline import KINDS, PAGE, read
from pubs.views.own import AuthenticatedRequest, own


@login_required
@require_safe
@never_cache
def timeline(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    kind, before = request.GET.get("kind", ""), request.GET.get("before", "")
    if kind and kind not in KINDS:
        raise Http404("There is nothing of this kind.")
    try:
        # One more tells whether there is an older page.
        lines = read(bot, before, PAGE + 1, kind)
    except ValueError as error:
        raise Http404(str(error)) from error
    shown, more = lines[:PAGE], lines[PAGE:]
    context = {
        "bot": bot,
        "kinds": KINDS,
        "kind": kind,
        "before": before,
        "lines": shown,
        "older": shown[-1].cursor if more else "",
    }
    return render(request, "pubs/timeline.html", context)
