"""`/metrics` for Prometheus: the fleet's facts as they are when they are asked for, so that every web process answers
the same. No label bears a name or an address of a customer's. docs/ops has the alerts and the dashboard on them.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from django.conf import settings
from django.db.models import Max
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from billing.models import Sweep
from orchestrator import fleet
from orchestrator.fleet import Fleet, HubFacts, Waiting

Value = float | datetime | None
BEARER = "Bearer "


class FleetCollector(Collector):
    """Reads the fleet at each scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        facts = fleet.look()
        yield from _pubs(facts)
        yield from _hubs(facts)
        yield from _work(facts)
        yield from _sweeps()


registry = CollectorRegistry()
registry.register(FleetCollector())


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """For whoever bears the token. Without one in the settings there is no such address."""
    if not settings.METRICS_TOKEN:
        raise Http404
    given = request.headers.get("Authorization", "")
    if not constant_time_compare(given, BEARER + settings.METRICS_TOKEN):
        return HttpResponse(status=401, headers={"WWW-Authenticate": BEARER.strip()})
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _pubs(facts: Fleet) -> Iterator[GaugeMetricFamily]:
    statuses = ((look.name.lower(), count) for look, count in facts.looks.items())
    yield _many("pubs", "Pubs by how they are seen.", "status", statuses)
    yield _many("pubs_by_payment", "Pubs by rung of the payment.", "rung", facts.rungs.items())
    yield _one("pubs_without_place", "Pubs that should run and are on no hub.", facts.without_place)
    yield _one("pubs_unreached", "Pubs that are up and did not answer from outside.", facts.unreached)
    yield _one("pub_crashes_last_hour", "Crashes of pubs within the last hour.", facts.crashes)
    yield _many("pub_troubles", "Open troubles of pubs.", "kind", facts.troubles.items())


def _hubs(facts: Fleet) -> Iterator[GaugeMetricFamily]:
    def each(name: str, words: str, values: Iterable[tuple[HubFacts, Value]]) -> GaugeMetricFamily:
        return _many(f"hub_{name}", words, "hub", ((hub.hub.name, value) for hub, value in values))

    hubs, carrying = facts.hubs, facts.carrying
    yield _many("hubs", "Hubs by state.", "state", facts.hub_states.items())
    yield _one("hubs_max", "Hubs that may be bought at most.", settings.MAX_HUBS)
    yield _one("places_free", "Places that the plan can give away now.", facts.free)
    yield each("places", "Places for pubs of 1 GB.", ((hub, hub.hub.places) for hub in carrying))
    yield each("places_taken", "Places that pubs hold.", ((hub, hub.taken) for hub in carrying))
    yield each("memory_size_bytes", "Memory that there is for pubs.", ((hub, hub.size) for hub in carrying))
    yield each("memory_promised_bytes", "Memory that pubs may use.", ((hub, hub.promised) for hub in carrying))
    yield each("memory_used_bytes", "Memory that pubs use.", ((hub, hub.measured.memory) for hub in carrying))
    yield each("cpu_cores", "Processor that pubs use, in cores.", ((hub, hub.measured.cpu) for hub in carrying))
    yield each("disk_used_bytes", "Disk that pubs fill.", ((hub, hub.disk) for hub in carrying))
    yield each("pubs_up", "Pubs that are up.", ((hub, hub.up) for hub in carrying))
    yield each("pubs_measured", "Pubs with a fresh sample.", ((hub, hub.measured.pubs) for hub in carrying))
    yield each("in_sight", "Whether swarm and engine show it.", ((hub, hub.in_sight) for hub in carrying))
    yield each("watched", "Whether a broadcaster watches it.", ((hub, hub.is_watched) for hub in carrying))
    ends = ((hub, hub.certificate_ends) for hub in hubs)
    yield each("certificate_end_timestamp_seconds", "When the certificate of its engine ends.", ends)
    yield _one("broadcasters", "Broadcasters that are alive.", len(facts.watchers))
    yield _one("streams", "Streams of stats and logs that they hold open.", facts.streams)


def _work(facts: Fleet) -> Iterator[GaugeMetricFamily]:
    yield _many("queue_age_seconds", "How long the oldest job of a queue waits.", "queue", facts.queues.items())
    done, failed = facts.last_pass, facts.failed_pass
    yield _one("last_pass_timestamp_seconds", "End of the last good pass.", done.at if done else None)
    yield _one("last_pass_duration_seconds", "How long it took.", done.seconds if done else None)
    yield _one("last_pass_actions", "How much it wanted done.", done.actions if done else None)
    yield _one("passes_failing", "Whether the last pass failed.", failed is not None)
    outbox = {"mail": facts.mails, "webhook": facts.hooks}
    yield _many("outbox_unsent", "What waits to be sent.", "kind", ((kind, it.count) for kind, it in outbox.items()))
    ages = ((kind, _age(it, facts.at)) for kind, it in outbox.items())
    yield _many("outbox_age_seconds", "How long the oldest of it waits.", "kind", ages)
    given_up = ((kind, it.given_up) for kind, it in outbox.items())
    yield _many("outbox_given_up", "What could not be sent and is not tried again.", "kind", given_up)
    yield _one("commands_unfinished", "Commands to pubs that have no answer yet.", facts.commands.count)
    yield _one("commands_age_seconds", "How long the oldest of them waits.", _age(facts.commands, facts.at))


def _sweeps() -> Iterator[GaugeMetricFamily]:
    ended = Sweep.objects.order_by().values_list("kind").annotate(Max("finished"))
    yield _many("stripe_sweep_timestamp_seconds", "End of the last comparison with Stripe.", "kind", ended)


def _age(waiting: Waiting, now: datetime) -> float:
    return (now - waiting.oldest).total_seconds() if waiting.oldest else 0


def _one(name: str, words: str, value: Value) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"buttcloud_{name}", words)
    if value is not None:
        family.add_metric([], _number(value))
    return family


def _many(name: str, words: str, label: str, values: Iterable[tuple[str, Value]]) -> GaugeMetricFamily:
    """What is not known has no sample."""
    family = GaugeMetricFamily(f"buttcloud_{name}", words, labels=[label])
    for key, value in values:
        if value is not None:
            family.add_metric([str(key)], _number(value))
    return family


def _number(value: float | datetime) -> float:
    return value.timestamp() if isinstance(value, datetime) else float(value)
