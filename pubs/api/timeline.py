"""All that happened to a pub, as JSON."""

from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView

from pubs.api.pubs import own_pubs
from pubs.timeline import KINDS, PAGE, read


class LineSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    kind = serializers.ChoiceField(choices=list(KINDS.items()))
    what = serializers.CharField(help_text="what happened, or what became of it")
    was = serializers.CharField(help_text="what it was before; empty if that says nothing")
    words = serializers.CharField(help_text="more about it")
    who = serializers.CharField(help_text="you or our staff; empty if no person did it")


class TimelineSerializer(serializers.Serializer[Any]):
    next = serializers.URLField(allow_null=True, help_text="where the older ones are")
    results = LineSerializer(many=True)


class TimelineView(APIView):
    """All that happened to a pub, the newest first: status, crashes, moves and restarts, payment, commands."""

    @extend_schema(
        responses=TimelineSerializer,
        parameters=[
            OpenApiParameter("kind", str, enum=list(KINDS), description="only these"),
            OpenApiParameter("before", str, description="only what is older: a time, or as `next` says it"),
        ],
    )
    def get(self, request: Request, pk: UUID) -> Response:
        bot = get_object_or_404(own_pubs(request), pk=pk)
        kind, before = request.query_params.get("kind", ""), request.query_params.get("before", "")
        if kind and kind not in KINDS:
            raise serializers.ValidationError({"kind": [f"It is one of {', '.join(KINDS)}."]})
        try:
            # One more tells whether there are older ones.
            lines = read(bot, before, PAGE + 1, kind)
        except ValueError as error:
            raise serializers.ValidationError({"before": [str(error)]}) from error
        shown, more = lines[:PAGE], lines[PAGE:]
        here = request.build_absolute_uri()
        next_page = replace_query_param(here, "before", shown[-1].cursor) if more else None
        return Response(TimelineSerializer({"next": next_page, "results": shown}).data)
