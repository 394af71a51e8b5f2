"""What a pub's page shows of its payment, and the addresses of Stripe's pages, for programs."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from babel import Locale
from django.shortcuts import get_object_or_404
from django.utils.decorators import method_decorator
from django.views.decorators.vary import vary_on_headers
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import User
from billing import gateway, paid, prices
from billing.gateway import Impossible, NotForSale, Offer, PaymentTrouble
from billing.money import locale_of
from billing.paid import NotNeeded
from billing.words import dates, words
from pubs.models import Bot


class PriceSerializer(serializers.Serializer[Offer]):
    """Something that can be bought: a pub of a size, paid by the month or the year."""

    offer = serializers.CharField(source="lookup_key", help_text="what a checkout asks for")
    memory_gb = serializers.IntegerField(help_text="memory for the pub alone")
    interval = serializers.ChoiceField(["month", "year"])
    amount = serializers.IntegerField(help_text="in the currency's smallest unit, as Stripe counts it")
    currency = serializers.CharField(help_text="three letters, small")
    words = serializers.SerializerMethodField(help_text="for people, written as Accept-Language wishes")

    def get_words(self, offer: Offer) -> str:
        return prices.words(offer, _locale(self.context["request"]))


class CheckoutSerializer(serializers.Serializer[dict[str, str]]):
    offer = serializers.CharField(help_text="one of /prices/")


class PortalSerializer(serializers.Serializer[dict[str, str]]):
    flow = serializers.ChoiceField(
        ["", *gateway.FLOWS], default="", help_text="the part to open: a new card, another size, the end; or all of it"
    )


class PaymentPage(serializers.Serializer[dict[str, str]]):
    url = serializers.URLField(read_only=True, help_text="a page of Stripe, for a person's browser")


class DateSerializer(serializers.Serializer[dict[str, Any]]):
    label = serializers.CharField(help_text="for people")  # type: ignore[assignment]
    at = serializers.DateTimeField()


class PaymentSerializer(serializers.Serializer[Bot]):
    """How it stands with the payment of a pub."""

    words = serializers.SerializerMethodField(help_text="for its owner, a sentence or two")
    price = serializers.SerializerMethodField(help_text="what is paid for it, for people; or nothing")
    pays_by = serializers.SerializerMethodField(
        help_text="the page that gets it running, or lets it run on: checkout, portal, or nothing where none does"
    )
    paid = serializers.BooleanField(help_text="whether it may run")
    status = serializers.CharField(source="paid_status", help_text="Stripe's word for the subscription, or nothing")
    until = serializers.DateTimeField(source="paid_until", allow_null=True, help_text="end of the period")
    ends = serializers.BooleanField(source="paid_ends", help_text="cancelled: nothing is charged after this period")
    dates = serializers.SerializerMethodField(help_text="every date that its page shows, in their order")

    def get_words(self, bot: Bot) -> str:
        return words(bot)

    def get_price(self, bot: Bot) -> str:
        return prices.price_of(bot, _locale(self.context["request"]))

    def get_pays_by(self, bot: Bot) -> str:
        return paid.pays_by(bot)

    @extend_schema_field(DateSerializer(many=True))
    def get_dates(self, bot: Bot) -> Any:
        shown = [{"label": label, "at": at} for label, at in dates(bot)]
        return DateSerializer(shown, many=True).data  # type: ignore[arg-type]


class PaidAlready(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "paid_already"


class NothingToDo(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "nothing_to_do"


class PaymentUnavailable(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "payment_unavailable"


def _locale(request: Request) -> Locale:
    return locale_of(request.headers.get("Accept-Language", ""))


def _own_pub(request: Request, pk: UUID) -> Bot:
    assert isinstance(request.user, User)
    return get_object_or_404(request.user.bots.alive(), pk=pk)


def _page(open_page: Callable[[], str]) -> Response:
    try:
        return Response({"url": open_page()})
    except NotForSale as error:
        raise serializers.ValidationError({"offer": [str(error)]}) from error
    except NotNeeded as error:
        raise PaidAlready(str(error)) from error
    except Impossible as error:
        raise NothingToDo(str(error)) from error
    except PaymentTrouble as trouble:
        raise PaymentUnavailable(str(trouble)) from trouble


class PricesView(APIView):
    permission_classes = [AllowAny]

    @extend_schema(responses=PriceSerializer(many=True), summary="What can be bought", auth=[])
    @method_decorator(vary_on_headers("Accept-Language"))
    def get(self, request: Request) -> Response:
        offers = PriceSerializer(gateway.offers(), many=True, context={"request": request})  # type: ignore[arg-type]
        return Response(offers.data)


class PaymentView(APIView):
    @extend_schema(responses=PaymentSerializer, summary="How it stands with the payment of a pub")
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(PaymentSerializer(_own_pub(request, pk), context={"request": request}).data)


class CheckoutView(APIView):
    @extend_schema(request=CheckoutSerializer, responses=PaymentPage, summary="Open the payment page of a pub")
    def post(self, request: Request, pk: UUID) -> Response:
        bot, asked = _own_pub(request, pk), CheckoutSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return _page(lambda: paid.start_checkout(bot, asked.validated_data["offer"]))


class PortalView(APIView):
    @extend_schema(
        request=PortalSerializer,
        responses=PaymentPage,
        summary="Open the page to change card or size, read invoices, cancel",
    )
    def post(self, request: Request, pk: UUID) -> Response:
        bot, asked = _own_pub(request, pk), PortalSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return _page(lambda: gateway.open_portal(bot.owner, bot, asked.validated_data["flow"]))
