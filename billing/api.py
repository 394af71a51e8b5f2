"""What a pub's page shows of its payment, and the addresses of Stripe's pages, for programs."""

from collections.abc import Callable
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import User
from billing import gateway, paid
from billing.gateway import PaymentTrouble
from billing.paid import NotNeeded
from billing.words import words
from pubs.models import Bot
from pubs.templatetags.pubs_extras import price


class PaymentPage(serializers.Serializer[dict[str, str]]):
    url = serializers.URLField(read_only=True, help_text="a page of Stripe, for a person's browser")


class PaymentSerializer(serializers.Serializer[Bot]):
    """How it stands with the payment of a pub."""

    words = serializers.SerializerMethodField(help_text="for its owner, a sentence or two")
    price = serializers.SerializerMethodField(help_text="of a new subscription, for people")
    pays_by = serializers.SerializerMethodField(
        help_text="the page that gets it running: checkout, portal, or nothing when it is paid for"
    )
    paid = serializers.BooleanField(help_text="whether it may run")
    status = serializers.CharField(source="paid_status", help_text="Stripe's word for the subscription, or nothing")
    until = serializers.DateTimeField(source="paid_until", allow_null=True, help_text="end of the period")
    ends = serializers.BooleanField(source="paid_ends", help_text="cancelled: nothing is charged after this period")

    def get_words(self, bot: Bot) -> str:
        return words(bot)

    def get_price(self, bot: Bot) -> str:
        return price()

    def get_pays_by(self, bot: Bot) -> str:
        return paid.pays_by(bot)


class PaidAlready(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "paid_already"


class PaymentUnavailable(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "payment_unavailable"


def _own_pub(request: Request, pk: UUID) -> Bot:
    assert isinstance(request.user, User)
    return get_object_or_404(request.user.bots.alive(), pk=pk)


def _page(request: Request, pk: UUID, open_page: Callable[[Bot], str]) -> Response:
    bot = _own_pub(request, pk)
    try:
        return Response({"url": open_page(bot)})
    except NotNeeded as error:
        raise PaidAlready(str(error)) from error
    except PaymentTrouble as trouble:
        raise PaymentUnavailable(str(trouble)) from trouble


class PaymentView(APIView):
    @extend_schema(responses=PaymentSerializer, summary="How it stands with the payment of a pub")
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(PaymentSerializer(_own_pub(request, pk)).data)


class CheckoutView(APIView):
    @extend_schema(request=None, responses=PaymentPage, summary="Open the payment page of a pub")
    def post(self, request: Request, pk: UUID) -> Response:
        return _page(request, pk, lambda bot: paid.start_checkout(bot, "pub-monthly-1gb"))


class PortalView(APIView):
    @extend_schema(request=None, responses=PaymentPage, summary="Open the page to change card, read invoices, cancel")
    def post(self, request: Request, pk: UUID) -> Response:
        return _page(request, pk, lambda bot: gateway.open_portal(bot.owner, bot))
