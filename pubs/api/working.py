"""Is my pub working, for programs."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from pubs import disk, working
from pubs.api.pubs import own_pubs

STATES = "good, bad, unknown or off, which is neither"


class AnswerSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="such as reachable: the same question always has the same name")
    question = serializers.CharField()
    state = serializers.CharField(help_text=STATES)
    words = serializers.CharField()
    todo = serializers.CharField(help_text="what you may do about it, if there is something")
    at = serializers.DateTimeField(allow_null=True, help_text="when that was found")


class DiskSerializer(serializers.Serializer[Any]):
    """What is not known yet is null."""

    size = serializers.IntegerField(allow_null=True, help_text="bytes of its whole volume")
    quota = serializers.IntegerField(help_text="bytes that its size entitles it to")
    percent = serializers.FloatField(allow_null=True, help_text="how much of that it takes")
    growth_per_day = serializers.FloatField(allow_null=True, help_text="bytes a day")
    full_in_days = serializers.SerializerMethodField(help_text="null if it is not growing, too")
    measured_at = serializers.DateTimeField(allow_null=True)

    def get_full_in_days(self, ahead: disk.Outlook) -> float | None:
        return ahead.full_in / timedelta(days=1) if ahead.full_in else None


class WorkingSerializer(serializers.Serializer[Any]):
    state = serializers.CharField(help_text=STATES)
    words = serializers.CharField(help_text="all in one sentence")
    answers = AnswerSerializer(many=True, help_text="none while the pub is stopped or not paid")
    disk = DiskSerializer()


class WorkingView(APIView):
    @extend_schema(
        operation_id="pubs_working_retrieve",
        description="Is my pub working? Whether people can reach it, whether messages reach it, and more, in words. "
        "Pubs are tried from outside each minute, and asked about themselves each five.",
        responses=WorkingSerializer,
    )
    def get(self, request: Request, pk: UUID) -> Response:
        bot = get_object_or_404(own_pubs(request).select_related("checkup"), pk=pk)
        working.look_closer(bot)
        ahead = disk.outlook(bot)
        found = working.answers(bot, ahead)
        verdict = working.verdict(bot, found)
        said = {"state": verdict.state, "words": verdict.words, "answers": found, "disk": ahead}
        return Response(WorkingSerializer(said).data)
