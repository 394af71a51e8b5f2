"""What an owner is told of a pub, and how."""

from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from mailer.models import Hook
from pubs.api.pubs import own_pubs
from pubs.models import Notices, Trouble

DELIVERIES = 20


class DeliverySerializer(serializers.ModelSerializer[Hook]):
    id = serializers.CharField(source="key", help_text="as in what is posted")

    class Meta:
        model = Hook
        fields = ["id", "event", "created", "sent_at", "tries", "error", "is_given_up"]


class NoticesSerializer(serializers.Serializer[Any]):
    mail = inline_serializer(
        "MailNotices",
        {
            kind: serializers.BooleanField(required=False, help_text=f"when {label}")
            for kind, label in Trouble.Kind.choices
        },
        required=False,
        help_text="the troubles that you are mailed about",
    )
    hook = inline_serializer(
        "HookNotices",
        {kind: serializers.BooleanField(required=False) for kind in Notices.POSTED},
        required=False,
        help_text="the news that are posted: the same troubles, and what happens with the payment",
    )
    hook_url = serializers.CharField(
        max_length=500, allow_blank=True, required=False, help_text="where news are posted to; empty: nowhere"
    )
    hook_secret = serializers.CharField(read_only=True, help_text="signs what is posted")
    deliveries = DeliverySerializer(many=True, read_only=True, help_text="the newest, the newest first")


class NoticesView(APIView):
    @extend_schema(
        description="Which troubles of a pub you are mailed about, which news of it are posted and where to, and how "
        "the last deliveries went. Mails about a payment always come.",
        responses=NoticesSerializer,
    )
    def get(self, request: Request, pk: UUID) -> Response:
        return self._answer(Notices.of(get_object_or_404(own_pubs(request), pk=pk)))

    @extend_schema(
        description="Choose what to be told. What is not named stays as it is.",
        request=NoticesSerializer,
        responses=NoticesSerializer,
    )
    def patch(self, request: Request, pk: UUID) -> Response:
        notices = Notices.of(get_object_or_404(own_pubs(request), pk=pk))
        asked = NoticesSerializer(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        wishes = asked.validated_data
        with transaction.atomic():
            if "hook_url" in wishes:
                try:
                    notices.post_to(wishes["hook_url"])
                except ValidationError as error:
                    raise serializers.ValidationError({"hook_url": error.messages}) from error
            if "mail" in wishes or "hook" in wishes:
                chosen = [self._mail(notices) | wishes.get("mail", {}), self._hook(notices) | wishes.get("hook", {})]
                notices.choose(*([kind for kind, is_on in each.items() if is_on] for each in chosen))
        return self._answer(notices)

    @staticmethod
    def _mail(notices: Notices) -> dict[str, bool]:
        return {kind: kind in notices.mailed for kind in Trouble.Kind.values}

    @staticmethod
    def _hook(notices: Notices) -> dict[str, bool]:
        return {kind: kind in notices.posted for kind in Notices.POSTED}

    def _answer(self, notices: Notices) -> Response:
        deliveries = Hook.objects.filter(about=str(notices.bot_id))[:DELIVERIES]
        plain = {"hook_url": notices.hook_url, "hook_secret": notices.hook_secret, "deliveries": deliveries}
        return Response(NoticesSerializer({"mail": self._mail(notices), "hook": self._hook(notices), **plain}).data)
