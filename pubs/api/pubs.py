"""Pubs themselves, what happened to them and what is asked of them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from pubs import live
from pubs.catalogue import CATALOGUE, Entry, ask
from pubs.models import Bot, Command, StatusChange

BODY_MAX = 64 * 1024  # bytes: many times the longest description


class SmallJSONParser(JSONParser):
    """JSON of a sane size. Django's own limit does not hold for bodies that DRF reads."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read(BODY_MAX + 1)
        if len(body) > BODY_MAX:
            raise ParseError(f"This is too long: send at most {BODY_MAX // 1024} kB.")
        try:
            data = json.loads(body, parse_constant=_refuse_constant)
            # Half a surrogate pair could neither be stored nor be sent back in an error.
            json.dumps(data, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise ParseError("This is not JSON that we can read.") from error
        return data


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


@contextmanager
def refusals_told(inside: str = "") -> Iterator[None]:
    """A refusal of the models or the catalogue in the API's shape, status 400: field → messages.

    `inside` names the field that holds the refused ones.
    """
    try:
        yield
    except ValidationError as error:
        fields = error.message_dict
        general = {api_settings.NON_FIELD_ERRORS_KEY: fields.pop("__all__")} if "__all__" in fields else {}
        told = {inside: fields} if inside and fields else fields
        raise serializers.ValidationError({**general, **told}) from error


class StepSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    done = serializers.BooleanField()
    current = serializers.BooleanField(help_text="the step that the pub waits for now")


class PubSerializer(serializers.ModelSerializer[Bot]):
    steps = StepSerializer(many=True, read_only=True, help_text="the way from a name to a running pub")

    class Meta:
        model = Bot
        fields = [
            "id",
            "name",
            "created",
            "status",
            "changed_at",
            "seen_at",
            "unknown_since",
            "lost_at",
            "moving",
            "reason",
            "rests_until",
            "address",
            "ssb_id",
            "status_public",
            "switched_on",
            "paid",
            "rung",
            "runs_until",
            "kept_until",
            "paid_status",
            "paid_until",
            "paid_ends",
            "steps",
        ]
        read_only_fields = [field for field in fields if field not in ("name", "status_public")]

    def create(self, validated_data: dict[str, Any]) -> Bot:
        with refusals_told():
            bot = Bot.objects.create_named(self.context["request"].user, validated_data["name"])
        return self._show(bot, validated_data)

    def update(self, bot: Bot, validated_data: dict[str, Any]) -> Bot:
        if "name" in validated_data:
            with refusals_told():
                bot.rename(validated_data["name"])
        return self._show(bot, validated_data)

    @staticmethod
    def _show(bot: Bot, validated_data: dict[str, Any]) -> Bot:
        if "status_public" in validated_data:
            bot.show_status(validated_data["status_public"])
        return bot


class StatusChangeSerializer(serializers.ModelSerializer[StatusChange]):
    class Meta:
        model = StatusChange
        fields = ["old", "new", "reason", "at"]


class StatsSerializer(serializers.Serializer[Any]):
    """One sample of a running pub; sizes in bytes, rates in bytes a second."""

    at = serializers.DateTimeField()
    seq = serializers.IntegerField(help_text="one more with each sample of a stream")
    cpu = serializers.FloatField(help_text="percent of one core")
    memory = serializers.IntegerField()
    memory_limit = serializers.IntegerField()
    net_rx = serializers.IntegerField(help_text="received since the start")
    net_tx = serializers.IntegerField(help_text="sent since the start")
    disk_read = serializers.IntegerField()
    disk_write = serializers.IntegerField()
    rx_rate = serializers.FloatField()
    tx_rate = serializers.FloatField()
    read_rate = serializers.FloatField()
    write_rate = serializers.FloatField()
    pids = serializers.IntegerField(help_text="processes and threads")


class LogLineSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    text = serializers.CharField()
    is_error = serializers.BooleanField()


class LogsSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField(allow_null=True, help_text="when they were read; null if they never could be")
    trouble = serializers.CharField(help_text="why there are no newer ones")
    lines = LogLineSerializer(many=True, help_text="the newest last")


class CommandSerializer(serializers.ModelSerializer[Command]):
    name = serializers.ChoiceField(choices=[(entry.name, entry.title) for entry in CATALOGUE.values()])
    args = serializers.DictField(required=False, help_text="the fields that the catalogue lists for this command")
    result = extend_schema_field(OpenApiTypes.ANY)(serializers.JSONField)(
        read_only=True, help_text="the pub's answer, once it is done"
    )

    class Meta:
        model = Command
        fields = ["id", "name", "args", "state", "result", "error", "created", "started", "finished"]
        read_only_fields = ["id", "state", "error", "created", "started", "finished"]

    def create(self, validated_data: dict[str, Any]) -> Command:
        asker = self.context["request"].user
        with refusals_told(inside="args"):
            return ask(validated_data["bot"], asker, validated_data["name"], validated_data.get("args", {}))


class FieldSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    help = serializers.CharField()
    type = serializers.ChoiceField(choices=["text", "integer"])
    required = serializers.BooleanField()  # type: ignore[assignment]
    max_length = serializers.IntegerField(allow_null=True, help_text="characters of a text")
    min_value = serializers.IntegerField(allow_null=True)
    max_value = serializers.IntegerField(allow_null=True)


class EntrySerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    title = serializers.CharField()
    help = serializers.CharField()
    changes = serializers.BooleanField(help_text="publishes something that can never be taken back")
    limit_seconds = serializers.IntegerField()
    args = FieldSerializer(many=True)


def described(entry: Entry) -> dict[str, Any]:
    """An entry of the catalogue as plain values."""
    args = [
        {
            "name": name,
            "label": str(field.label),
            "help": str(field.help_text),
            "type": "integer" if isinstance(field, forms.IntegerField) else "text",
            "required": field.required,
            **{limit: getattr(field, limit, None) for limit in ("max_length", "min_value", "max_value")},
        }
        for name, field in entry.form.base_fields.items()
    ]
    return {
        "name": entry.name,
        "title": entry.title,
        "help": entry.help,
        "changes": entry.changes,
        "limit_seconds": entry.limit_seconds,
        "args": args,
    }


def own_pubs(request: Request) -> QuerySet[Bot]:
    """The look-up is the permission: whoever asks sees their own pubs, and all others are not found."""
    if not request.user.is_authenticated:  # only while the schema is written
        return Bot.objects.none()
    return request.user.bots.alive()


@extend_schema_view(
    list=extend_schema(description="Your pubs, the oldest first."),
    create=extend_schema(
        description="Name a new pub. People see this name in their apps: the pub publishes it when it first starts, "
        "and what is published can't be taken back. It runs once it is paid for: ask for its checkout next."
    ),
    retrieve=extend_schema(
        description="One of your pubs: what it should be, what is seen of it, and what it waits for."
    ),
    partial_update=extend_schema(
        description="Rename a pub here, for you, or open and close its public status page. The name that people see in "
        "their apps once it has started is changed with the command set_profile."
    ),
    destroy=extend_schema(description="Delete a pub: it stops, and its subscription ends."),
)
class PubViewSet(
    mixins.ListModelMixin,
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    mixins.DestroyModelMixin,
    GenericViewSet[Bot],
):
    serializer_class = PubSerializer
    parser_classes = [SmallJSONParser]
    lookup_value_converter = "uuid"
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]

    def get_queryset(self) -> QuerySet[Bot]:
        return own_pubs(self.request)

    def perform_destroy(self, bot: Bot) -> None:
        bot.delete_softly()

    @extend_schema(description="Switch a pub on. It starts as soon as it is paid for.", request=None)
    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        bot = self.get_object()
        with refusals_told():
            bot.start()
        return Response(self.get_serializer(bot).data)

    @extend_schema(description="Switch a pub off. It keeps its data, and its subscription goes on.", request=None)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        bot = self.get_object()
        with refusals_told():
            bot.stop()
        return Response(self.get_serializer(bot).data)

    @extend_schema(description="Restart a running pub; it is away for a few seconds.", request=None)
    @action(detail=True, methods=["post"])
    def restart(self, request: Request, pk: str) -> Response:
        bot = self.get_object()
        with refusals_told():
            bot.restart()
        return Response(self.get_serializer(bot).data)

    @extend_schema(
        description="The newest sample of a pub's use of its machine. Whoever asks starts the measuring, so the first "
        "answer may be 404: ask again after a second or two.",
        responses=StatsSerializer,
    )
    @action(detail=True)
    def stats(self, request: Request, pk: str) -> Response:
        bot = self.get_object()
        live.watch(bot.pk)
        sample = live.newest_stats(bot.pk)
        if sample is None:
            raise NotFound("Nothing is measured yet. If the pub is up, ask again in a second or two.")
        return Response(StatsSerializer(sample).data)

    @extend_schema(
        description=f"The last {live.LINES} lines that a pub wrote, without secrets. Whoever asks has them read anew; "
        "the answer is what was read last, and may be 404 at first: ask again after a second or two.",
        responses=LogsSerializer,
    )
    @action(detail=True)
    def logs(self, request: Request, pk: str) -> Response:
        bot = self.get_object()
        known = live.newest_logs(bot.pk, live.LINES)
        live.ask_for_logs(bot.pk, live.LINES)
        if known is None:
            raise NotFound("Nothing is read yet. If the pub has run, ask again in a second or two.")
        return Response(LogsSerializer(known).data)


@extend_schema_view(list=extend_schema(description="How a pub's status changed, the newest change first."))
class StatusChangeViewSet(mixins.ListModelMixin, GenericViewSet[StatusChange]):
    serializer_class = StatusChangeSerializer

    def get_queryset(self) -> QuerySet[StatusChange]:
        if getattr(self, "swagger_fake_view", False):
            return StatusChange.objects.none()
        return get_object_or_404(own_pubs(self.request), pk=self.kwargs["pub"]).status_changes.all()


@extend_schema_view(
    list=extend_schema(description="What was asked of a pub, the newest first."),
    create=extend_schema(
        description="Ask something of a pub, from the catalogue. It is answered within seconds: read the command again "
        "until its state is neither queued nor running. A command runs once at most."
    ),
    retrieve=extend_schema(description="One command and, once it is done, its result."),
)
class CommandViewSet(
    mixins.ListModelMixin,
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    GenericViewSet[Command],
):
    serializer_class = CommandSerializer
    parser_classes = [SmallJSONParser]
    lookup_value_converter = "uuid"

    def get_bot(self) -> Bot:
        return get_object_or_404(own_pubs(self.request), pk=self.kwargs["pub"])

    def get_queryset(self) -> QuerySet[Command]:
        if getattr(self, "swagger_fake_view", False):
            return Command.objects.none()
        return self.get_bot().commands.all()

    def perform_create(self, serializer: serializers.BaseSerializer[Command]) -> None:
        serializer.save(bot=self.get_bot())


class CatalogueView(APIView):
    """What can be asked of a pub, with the arguments that each command takes."""

    @extend_schema(responses=EntrySerializer(many=True))
    def get(self, request: Request) -> Response:
        return Response(EntrySerializer([described(entry) for entry in CATALOGUE.values()], many=True).data)
