"""What a pub used over time, for programs."""

from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from django.utils.decorators import method_decorator
from django.views.decorators.gzip import gzip_page
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from pubs import history
from pubs.api.pubs import own_pubs

DEFAULT = "24h"
METRICS_TOLD = ", ".join(f"{metric} ({unit})" for metric, unit in history.UNITS.items()).replace("_", " ")


class MetricSerializer(serializers.Serializer[Any]):
    """Lists of equal length, a value for each step; null where nothing was measured."""

    min = serializers.ListField(child=serializers.FloatField(allow_null=True))
    mean = serializers.ListField(child=serializers.FloatField(allow_null=True))
    max = serializers.ListField(child=serializers.FloatField(allow_null=True))


class HistorySerializer(serializers.Serializer[Any]):
    range = serializers.ChoiceField(choices=list(history.RANGES))
    step = serializers.IntegerField(help_text="seconds from one value to the next")
    times = serializers.ListField(child=serializers.IntegerField(), help_text="Unix times: when each step begins")
    metrics = serializers.DictField(child=MetricSerializer(), help_text=METRICS_TOLD)


class HistoryView(APIView):
    @extend_schema(
        description="What a pub used over time: lowest, mean and highest value of each step. Days are those of UTC.",
        parameters=[OpenApiParameter("range", enum=list(history.RANGES), default=DEFAULT)],
        responses=HistorySerializer,
    )
    @method_decorator(gzip_page)
    def get(self, request: Request, pub: UUID) -> Response:
        bot = get_object_or_404(own_pubs(request), pk=pub)
        wanted = request.query_params.get("range", DEFAULT)
        if wanted not in history.RANGES:
            raise serializers.ValidationError({"range": [f"Choose one of {', '.join(history.RANGES)}."]})
        found = history.read(bot, wanted)
        return Response(
            {
                "range": wanted,
                "step": found.range.step,
                "times": found.times,
                "metrics": {metric: _short(found.metric(metric)) for metric in history.UNITS},
            }
        )


def _short(metric: history.Metric) -> dict[str, list[float | None]]:
    """Without the many digits of a mean, which say nothing and make the way long."""
    return {
        part: [None if value is None else round(value, 2) for value in values]
        for part, values in metric._asdict().items()
    }
