"""The addresses of Stripe's pages, for programs."""

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
from billing import gateway
from billing.gateway import PaymentTrouble
from billing.views import NotNeeded, start_checkout
from pubs.models import Bot


class PaymentPage(serializers.Serializer[dict[str, str]]):
    url = serializers.URLField(read_only=True, help_text="a page of Stripe, for a person's browser")


class PaidAlready(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "paid_already"


class PaymentUnavailable(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "payment_unavailable"


def _page(request: Request, pk: UUID, open_page: Callable[[Bot], str]) -> Response:
    assert isinstance(request.user, User)
    bot = get_object_or_404(request.user.bots.alive(), pk=pk)
    try:
        return Response({"url": open_page(bot)})
    except NotNeeded as error:
        raise PaidAlready(str(error)) from error
    except PaymentTrouble as trouble:
        raise PaymentUnavailable(str(trouble)) from trouble


class CheckoutView(APIView):
    @extend_schema(request=None, responses=PaymentPage, summary="Open the payment page of a pub")
    def post(self, request: Request, pk: UUID) -> Response:
        return _page(request, pk, start_checkout)


class PortalView(APIView):
    @extend_schema(request=None, responses=PaymentPage, summary="Open the page to change card, read invoices, cancel")
    def post(self, request: Request, pk: UUID) -> Response:
        return _page(request, pk, lambda bot: gateway.open_portal(bot.owner, bot))
