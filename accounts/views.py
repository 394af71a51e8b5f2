"""The account page. Signing in and out, passwords and addresses are allauth's; only their templates are ours."""

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from knox.models import AuthToken

from accounts.forms import NameForm, TokenForm
from accounts.models import User


class SignedInRequest(HttpRequest):
    """What a view behind @login_required gets."""

    user: User


@require_GET
@login_required
def home(request: SignedInRequest) -> HttpResponse:
    return _home(request, NameForm(instance=request.user), TokenForm(request.user))


@require_POST
@login_required
def change_name(request: SignedInRequest) -> HttpResponse:
    # Another instance: a form that fails leaves its input in the instance, and the page shows the user's real name.
    form = NameForm(request.POST, instance=User.objects.get(pk=request.user.pk))
    if not form.is_valid():
        return _home(request, form, TokenForm(request.user))
    form.save()
    messages.success(request, "Your name is changed.")
    return redirect("accounts:home")


@require_POST
@login_required
@reauthentication_required
@never_cache
def make_token(request: SignedInRequest) -> HttpResponse:
    """Make an API token and show it, this once: only its hash is kept."""
    form = TokenForm(request.user, request.POST)
    if not form.is_valid():
        return _home(request, NameForm(instance=request.user), form)
    token, word = AuthToken.objects.create(user=request.user, expiry=form.expiry)
    return render(request, "accounts/token.html", {"token": token, "word": word})


@require_POST
@login_required
def revoke_token(request: SignedInRequest, key: str) -> HttpResponse:
    deleted, _ = AuthToken.objects.filter(user=request.user, token_key=key).delete()
    if not deleted:
        raise Http404
    messages.success(request, "The token is revoked. Programs that use it are locked out from now on.")
    return redirect("accounts:home")


def _home(request: SignedInRequest, name_form: NameForm, token_form: TokenForm) -> HttpResponse:
    shown = {
        "name_form": name_form,
        "token_form": token_form,
        "tokens": AuthToken.objects.filter(user=request.user).order_by("-created"),
        "now": timezone.now(),
    }
    return render(request, "accounts/home.html", shown)
