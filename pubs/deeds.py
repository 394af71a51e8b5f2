"""What staff do by hand in admin, where no form may write over columns: each deed is an action on rows, and those that
need words or can't be undone come after a form of their own. All are written into Django's log.
"""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.auth import get_permission_codename
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from accounts.models import User


class NotNow(Exception):
    """A deed that does not fit how things are, in words for staff."""


class DeedForm(forms.Form):
    """What must be said before a deed, and the deed. NotNow from its beginning: it does not fit this row."""

    name = ""  # of the deed, as its button says it
    means = ""  # what staff must know before

    def __init__(self, row: Any, data: Any = None) -> None:
        super().__init__(data)
        self.row = row

    def do(self, by: User) -> str:
        """Do it, and say what was done. ValidationError where the same form can be sent again, NotNow where not."""
        raise NotImplementedError


class DeedAdmin(admin.ModelAdmin):
    """Actions for those who may change a row although its page is read-only; the page has them as buttons."""

    change_form_template = "admin/row_with_deeds.html"

    def has_deed_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{get_permission_codename('change', self.opts)}")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        deeds = self.get_action_choices(request, default_choices=[])
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "deeds": deeds})

    def response_action(self, request: HttpRequest, *args: Any, **options: Any) -> HttpResponse | None:
        """As ever, but who pressed a button on a row's page comes back to it."""
        response = super().response_action(request, *args, **options)
        if isinstance(response, HttpResponseRedirect) and (row := request.POST.get("page_of")):
            return self._page_of(row)
        return response

    def _page_of(self, row: Any) -> HttpResponse:
        return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", row)

    def do(self, request: HttpRequest, row: Any, deed: Callable[[], str]) -> None:
        try:
            said = deed()
        except NotNow as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.log_change(request, row, said)
            self.message_user(request, said, messages.SUCCESS)

    def do_by_form(self, request: HttpRequest, rows: QuerySet[Any], kind: type[DeedForm]) -> HttpResponse | None:
        """Show the form for one row; when it comes back and is right, do the deed."""
        if len(rows) != 1:
            words = f"Choose one {self.opts.verbose_name}: this goes one by one."
            self.message_user(request, words, messages.ERROR)
            return None
        row, sent = rows[0], any(name in request.POST for name in kind.base_fields)
        try:
            form = kind(row, request.POST if sent else None)
        except NotNow as error:
            self.message_user(request, str(error), messages.ERROR)
            return self._page_of(row.pk)
        if form.is_valid():
            try:
                self.do(request, row, lambda: form.do(request.user))  # type: ignore[arg-type]  # staff are signed in
                return self._page_of(row.pk)
            except ValidationError as error:
                form.add_error(None, error)
        return self._show(request, form)

    def _show(self, request: HttpRequest, form: DeedForm) -> TemplateResponse:
        context = self.admin_site.each_context(request) | {
            "title": f"{form.name} {form.row}?",
            "opts": self.opts,
            "row": form.row,
            "deed": request.POST["action"],
            "form": form,
            "adminform": AdminForm(form, [(None, {"fields": list(form.fields)})], {}),  # type: ignore[arg-type]
            "media": self.media,
        }
        return TemplateResponse(request, "admin/deed.html", context)
